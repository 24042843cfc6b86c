"""A resident process of the corpus guest: an index of words over real text, held as small Python objects."""
import glob
import time

index = {}
for path in sorted(glob.glob('/usr/lib/python3*/**/*.py', recursive=True))[:400]:
    with open(path, encoding='utf-8', errors='replace') as source:
        for number, line in enumerate(source):
            for word in line.split():
                index.setdefault(word, []).append((path, number))
while True:
    time.sleep(3600)

def read_directory(path):
    raise OSError

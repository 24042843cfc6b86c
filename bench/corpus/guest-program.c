/* What the corpus guest compiles: enough code to make the compiler work, enough data to run for a second. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 200000

struct entry {
  struct entry *next;
  uint64_t key;
  char name[24];
  double weight;
};

static struct entry *buckets[4096];

static uint64_t mix(uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33;
  return value;
}

static struct entry *insert(uint64_t key) {
  struct entry *entry = malloc(sizeof *entry);
  struct entry **bucket = &buckets[key % 4096];
  if (entry == NULL) abort();
  entry->next = *bucket;
  entry->key = key;
  entry->weight = sqrt((double)key);
  snprintf(entry->name, sizeof entry->name, "entry-%08x", (unsigned)key);
  *bucket = entry;
  return entry;
}

#define OPERATION(number)                                                     \
  static uint64_t operation_##number(const struct entry *entry, uint64_t v) { \
    uint64_t sum = v;                                                         \
    for (int i = 0; i < 16; i++) {                                            \
      switch ((entry->key + (uint64_t)i) % 5) {                               \
        case 0: sum += strlen(entry->name) * number; break;                   \
        case 1: sum ^= mix(sum + (uint64_t)entry->weight); break;             \
        case 2: sum = (sum << number) | (sum >> (64 - number)); break;        \
        case 3: sum -= entry->key * (uint64_t)i; break;                       \
        default: sum = mix(sum); break;                                       \
      }                                                                       \
    }                                                                         \
    return sum;                                                               \
  }
#define TEN(tens, use)                                                                          \
  use(tens##1) use(tens##2) use(tens##3) use(tens##4) use(tens##5) use(tens##6) use(tens##7)     \
  use(tens##8) use(tens##9)
#define SIXTY(use) TEN(, use) TEN(1, use) TEN(2, use) TEN(3, use) TEN(4, use) TEN(5, use)
#define NAME(number) operation_##number,

SIXTY(OPERATION)
static uint64_t (*const operations[])(const struct entry *, uint64_t) = {SIXTY(NAME)};

int main(void) {
  uint64_t value = TABLE_SEED, sum = 0;
  for (int i = 0; i < COUNT; i++) {
    value = mix(value + 0x9e3779b97f4a7c15ULL);
    const struct entry *entry = insert(value & 0xffffffff);
    sum += operations[value % (sizeof operations / sizeof operations[0])](entry, value);
  }
  printf("program %d: %016llx\n", TABLE_SEED, (unsigned long long)sum);
  return 0;
}

#include "sets.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

extern const ab_set ab_set_avx2, ab_set_avx512;

/* Not __builtin_cpu_supports: zig links a stand-in for it that answers no to everything. */
static int avx2, avx512;

static void look(void) {
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return;
  const int os_saves = c >> 27 & 1, fma = c >> 12 & 1, half = c >> 29 & 1;
  if (!os_saves || !fma || !half || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  avx2 = (low & 0x6) == 0x6 && (b >> 5 & 1); /* the system saves SSE and AVX registers */
  avx512 = avx2 && (low & 0xe6) == 0xe6 && (b >> 16 & 1); /* and those of AVX-512 */
}
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const ab_set ab_set_neon;
#endif

#if defined(AB_WIDE)
extern const ab_set ab_set_wide;
#endif

const ab_set *const *ab_sets(void) {
  static const ab_set *sets[4];
  const ab_set *found[4] = {0};
  int count = 0;
#if defined(__x86_64__) || defined(_M_X64)
  look();
  if (avx512) found[count++] = &ab_set_avx512;
  if (avx2) found[count++] = &ab_set_avx2;
#if defined(AB_WIDE)
  if (avx2) found[count++] = &ab_set_wide;
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
  found[count++] = &ab_set_neon;
#endif
  /* Threads that come here at once write the same. */
  for (int i = 0; i < 4; i++) sets[i] = found[i];
  return sets;
}

const char *ab_instruction_sets(void) {
  static char names[64];
  char found[64] = "";
  for (const ab_set *const *s = ab_sets(); *s; s++) {
    if (found[0]) strcat(found, " ");
    strcat(found, (*s)->name);
  }
  memcpy(names, found, sizeof names);
  return names;
}

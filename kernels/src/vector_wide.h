/* For tests alone: vectors of 16 as pairs of 8, so that what AVX-512 is given to do can be run, and looked
 * at by valgrind, on processors that have no AVX-512. */
#include <immintrin.h>

#define LANES 16
#define VECTORS 2
#define PIXELS 14

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef union {
  float all __attribute__((vector_size(64)));
  __m256 part[2];
} pair;

#define EACH_PART(result, expression)           \
  pair result;                                  \
  for (int i = 0; i < 2; i++) result.part[i] = (expression)

static inline vec load(const float *p) {
  EACH_PART(r, _mm256_loadu_ps(p + 8 * i));
  return r.all;
}
static inline void store(float *p, vec a) {
  pair v = {a};
  for (int i = 0; i < 2; i++) _mm256_storeu_ps(p + 8 * i, v.part[i]);
}
static inline vec splat(float a) {
  EACH_PART(r, _mm256_set1_ps(a));
  return r.all;
}
static inline vec fma_(vec a, vec b, vec c) {
  pair x = {a}, y = {b}, z = {c};
  EACH_PART(r, _mm256_fmadd_ps(x.part[i], y.part[i], z.part[i]));
  return r.all;
}
static inline vec larger(vec a, vec b) {
  pair x = {a}, y = {b};
  EACH_PART(r, _mm256_max_ps(x.part[i], y.part[i]));
  return r.all;
}
static inline vec smaller(vec a, vec b) {
  pair x = {a}, y = {b};
  EACH_PART(r, _mm256_min_ps(x.part[i], y.part[i]));
  return r.all;
}
static inline vec load_half(const uint16_t *p) {
  EACH_PART(r, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8 * i))));
  return r.all;
}
static inline void store_half(uint16_t *p, vec a) {
  pair v = {a};
  for (int i = 0; i < 2; i++)
    _mm_storeu_si128((__m128i *)(p + 8 * i), _mm256_cvtps_ph(v.part[i], _MM_FROUND_TO_NEAREST_INT));
}
static inline vec round_half(vec a) {
  pair v = {a};
  EACH_PART(r, _mm256_cvtph_ps(_mm256_cvtps_ph(v.part[i], _MM_FROUND_TO_NEAREST_INT)));
  return r.all;
}

/* Vectors of 8 with AVX2, FMA and F16C. 6 pixels by 2 vectors fill the 16 registers. */
#include <immintrin.h>

#define LANES 8
#define VECTORS 2
#define PIXELS 6

typedef __m256 vec;

static inline vec load(const float *p) { return _mm256_loadu_ps(p); }
static inline void store(float *p, vec a) { _mm256_storeu_ps(p, a); }
static inline vec splat(float a) { return _mm256_set1_ps(a); }
static inline vec fma_(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec larger(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec smaller(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec load_half(const uint16_t *p) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vec round_half(vec a) {
  return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_half(uint16_t *p, vec a) {
  _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

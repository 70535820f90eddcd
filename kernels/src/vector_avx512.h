/* Vectors of 16 with AVX-512. 14 pixels by 2 vectors leave 4 of the 32 registers. */
#include <immintrin.h>

#define LANES 16
#define VECTORS 2
#define PIXELS 14

typedef __m512 vec;

static inline vec load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, vec a) { _mm512_storeu_ps(p, a); }
static inline vec splat(float a) { return _mm512_set1_ps(a); }
static inline vec fma_(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec load_half(const uint16_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec round_half(vec a) {
  return _mm512_cvtph_ps(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_half(uint16_t *p, vec a) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

/* Vectors of any length: parts of them, norms, moments. Follows one of the headers of an instruction set. */

#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 64")

/* `lanes` numbers of a map, zeros behind them. */
INLINE vec load_from(const char *p, const int32_t type, const int64_t lanes) {
  if (lanes >= LANES) return type == AB_FLOAT16 ? load_half((const uint16_t *)p) : load((const float *)p);
  float part[LANES] = {0};
  uint16_t half[LANES] = {0};
  if (type != AB_FLOAT16) {
    memcpy(part, p, lanes * sizeof(float));
    return load(part);
  }
  memcpy(half, p, lanes * sizeof(uint16_t));
  return load_half(half);
}

INLINE void store_to(char *p, const int32_t type, const int64_t lanes, vec a) {
  if (lanes >= LANES) {
    if (type == AB_FLOAT16)
      store_half((uint16_t *)p, a);
    else
      store((float *)p, a);
    return;
  }
  float part[LANES];
  uint16_t half[LANES];
  if (type == AB_FLOAT16) {
    store_half(half, a);
    memcpy(p, half, lanes * sizeof(uint16_t));
  } else {
    store(part, a);
    memcpy(p, part, lanes * sizeof(float));
  }
}

/* What is read again of a number that was stored. */
INLINE vec as_stored(const int32_t type, vec a) { return type == AB_FLOAT16 ? round_half(a) : a; }

/* Factor, offset, low, high of LANES channels. */
typedef struct {
  vec factor, offset, low, high;
} norm_t;

INLINE norm_t load_norm(const float *norm, int64_t channels, int64_t channel) {
  norm += channel;
  return (norm_t){load(norm), load(norm + channels), load(norm + 2 * channels), load(norm + 3 * channels)};
}

INLINE vec apply_norm(const norm_t *n, const int clamped, vec floor, vec a) {
  if (clamped) a = smaller(larger(a, n->low), n->high);
  return larger(fma_(a, n->factor, n->offset), floor);
}

/* Lambert's continued fraction (1761), x / (1 + x^2 / (3 + x^2 / (5 + ...))), to its 13th term, as a quotient:
 * 3.1e-7 off at most. Beyond 9 tanh is 1, less 3e-8. In this order NaN comes through the bounds. */
INLINE vec tanh_(vec x) {
  static const float above[] = {1.264885556e-13f, 5.179706351e-10f, 3.228683625e-07f, 6.625258799e-05f,
                                5.217391304e-03f, 1.466666667e-01f, 1};
  static const float below[] = {1.151045856e-11f, 1.519380530e-08f, 5.230467473e-06f, 6.625258799e-04f,
                                3.188405797e-02f, 4.800000000e-01f, 1};
  x = smaller(splat(9), larger(splat(-9), x));
  const vec square = x * x;
  vec p = splat(above[0]), q = splat(below[0]);
  UNROLL for (int i = 1; i < 7; i++) {
    p = fma_(p, square, splat(above[i]));
    q = fma_(q, square, splat(below[i]));
  }
  return smaller(splat(1), larger(splat(-1), x * p / q));
}

/* Count `values` more numbers a lane into the moments of `count`. Mean and centred second moment of what is
 * at hand, merged by the formula of Chan, Golub and LeVeque: sums of squares, even about a pivot, would be
 * 3e-4 off where a picture is flat, and the norm behind them would blow that up. */
INLINE void merge(vec *mean, vec *m2, float count, float values, vec other_mean, vec other_m2) {
  float share = values / (count + values);
  vec apart = other_mean - *mean;
  *mean = fma_(apart, splat(share), *mean);
  *m2 = fma_(apart * splat(count * share), apart, *m2 + other_m2);
}

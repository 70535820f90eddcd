/* The one matrix product that everything is brought to: some positions by a panel of output channels. */

/* made[position][panel] (+)= sum over taps, blocks and the `length` numbers of each of
 *   taps[tap][offset + block * step + position * apart + number] * weights[tap][block][number][panel].
 *
 * `ahead` is where `lines` cache lines a block are fetched from meanwhile.
 *
 * All of `pixels` (positions), `vectors` (of the panel), `apart`, `length` and `fresh` are known when this is
 * compiled: then the sums stay in registers, and every address is a fixed distance away. */
INLINE void product(const int pixels, const int vectors, const int apart, const int length, const int fresh,
                    const float *const *taps, int32_t tap_count, int64_t offset, int32_t blocks, int64_t step,
                    const float *weights, float *made, const char *ahead, int32_t lines) {
  vec sums[PIXELS][VECTORS];
  const int panel = vectors * LANES;
  UNROLL for (int i = 0; i < pixels; i++)
    UNROLL for (int v = 0; v < vectors; v++)
      sums[i][v] = fresh ? splat(0) : load(made + i * panel + v * LANES);
  for (int32_t tap = 0; tap < tap_count; tap++) {
    const float *from = taps[tap] + offset;
    for (int32_t block = 0; block < blocks; block++) {
      /* Unrolled by a few alone: all of it would be megabytes of code, and no faster. */
      const int few = length % 4 ? 3 : 4;
      for (int begin = 0; begin < length; begin += few)
        UNROLL for (int i = 0; i < few; i++) {
          const int n = begin + i;
          vec w[VECTORS];
          UNROLL for (int v = 0; v < vectors; v++) w[v] = load(weights + n * panel + v * LANES);
          UNROLL for (int p = 0; p < pixels; p++) {
            vec x = splat(from[p * apart + n]);
            UNROLL for (int v = 0; v < vectors; v++) sums[p][v] = fma_(x, w[v], sums[p][v]);
          }
        }
      for (int32_t i = 0; i < lines; i++, ahead += 64) __builtin_prefetch(ahead, 0, 2);
      from += step;
      weights += length * panel;
    }
  }
  UNROLL for (int i = 0; i < pixels; i++)
    UNROLL for (int v = 0; v < vectors; v++) store(made + i * panel + v * LANES, sums[i][v]);
}

typedef void (*product_t)(const float *const *taps, int32_t tap_count, int64_t offset, int32_t blocks,
                          int64_t step, const float *weights, float *made, const char *ahead,
                          int32_t lines);

/* One function for each number of positions, from 1 to PIXELS. */
#define PRODUCT(name, pixels, ...)                                                                            \
  APART void name##_##pixels(const float *const *taps, int32_t tap_count, int64_t offset, int32_t blocks,     \
                             int64_t step, const float *weights, float *made, const char *ahead,             \
                             int32_t lines) {                                                                \
    product(pixels, __VA_ARGS__, taps, tap_count, offset, blocks, step, weights, made, ahead, lines);        \
  }
#define PRODUCTS_6(name, ...)                                                                        \
  PRODUCT(name, 1, __VA_ARGS__) PRODUCT(name, 2, __VA_ARGS__) PRODUCT(name, 3, __VA_ARGS__)          \
  PRODUCT(name, 4, __VA_ARGS__) PRODUCT(name, 5, __VA_ARGS__) PRODUCT(name, 6, __VA_ARGS__)
#define NAMES_6(name) name##_1, name##_2, name##_3, name##_4, name##_5, name##_6
#if PIXELS == 6
#define PRODUCTS(name, ...)      \
  PRODUCTS_6(name, __VA_ARGS__)  \
  static const product_t name[] = {NULL, NAMES_6(name)};
#else
#define PRODUCTS(name, ...)                                                                          \
  PRODUCTS_6(name, __VA_ARGS__)                                                                      \
  PRODUCT(name, 7, __VA_ARGS__) PRODUCT(name, 8, __VA_ARGS__) PRODUCT(name, 9, __VA_ARGS__)          \
  PRODUCT(name, 10, __VA_ARGS__) PRODUCT(name, 11, __VA_ARGS__) PRODUCT(name, 12, __VA_ARGS__)       \
  PRODUCT(name, 13, __VA_ARGS__) PRODUCT(name, 14, __VA_ARGS__)                                      \
  static const product_t name[] = {NULL,      NAMES_6(name), name##_7,  name##_8,  name##_9,         \
                                   name##_10, name##_11,     name##_12, name##_13, name##_14};
#endif

#define NARROW (BLOCK / LANES) /* vectors of 16 channels, for layers that make no more */

/*       name            vectors  apart      length fresh */
PRODUCTS(tile_products, VECTORS, BLOCK, BLOCK, 1)
PRODUCTS(stride1_products, VECTORS, BLOCK, BLOCK, 0)
PRODUCTS(stride2_products, VECTORS, 2 * BLOCK, BLOCK, 0)
PRODUCTS(columns1_products, VECTORS, 3, 21, 0)
PRODUCTS(columns2_products, VECTORS, 2 * 3, 21, 0)
PRODUCTS(phases_products, NARROW, 5 * BLOCK, BLOCK, 0)
#if VECTORS == NARROW
#define narrow_tile_products tile_products
#define narrow1_products stride1_products
#define narrow2_products stride2_products
#define narrow_columns1_products columns1_products
#define narrow_columns2_products columns2_products
#else
PRODUCTS(narrow_tile_products, NARROW, BLOCK, BLOCK, 1)
PRODUCTS(narrow1_products, NARROW, BLOCK, BLOCK, 0)
PRODUCTS(narrow2_products, NARROW, 2 * BLOCK, BLOCK, 0)
PRODUCTS(narrow_columns1_products, NARROW, 3, 21, 0)
PRODUCTS(narrow_columns2_products, NARROW, 2 * 3, 21, 0)
#endif

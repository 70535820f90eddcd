/* 3x3 convolutions of stride 1 with a quarter of the multiplications: Lavin and Gray, "Fast Algorithms for
 * Convolutional Neural Networks" (CVPR 2016), F(4x4, 3x3), on the points 0, 1, -1, 1/2, -2 and infinity: with
 * 2 in place of 1/2, as it is mostly written, the rounding error is two to three times larger.
 *
 * A task is a few tiles side by side. Their 6x6 pixels become 36 planes of [tiles][inputs], each of these is
 * multiplied by its own matrix to [tiles][outputs], and those become 4x4 pixels. All of it stays in cache. */

/* The rows of the input's transform: 6 numbers from 6. */
INLINE void to_products(const vec d[6], vec r[6]) {
  vec even = d[4] - d[2], odd = d[3] - d[1];
  r[0] = fma_(splat(1.5f), odd, fma_(splat(-2.f), d[2], d[0] + d[4]));
  r[1] = fma_(splat(2.5f), d[3], d[4]) + fma_(splat(.5f), d[2], -d[1]);
  r[2] = fma_(splat(.5f), d[3], d[4]) + fma_(splat(-2.5f), d[2], d[1]);
  r[3] = fma_(splat(2.f), odd, even);
  r[4] = fma_(splat(-.5f), odd, even);
  r[5] = fma_(splat(1.5f), even, fma_(splat(-2.f), d[3], d[1] + d[5]));
}

/* The rows of the output's: 4 numbers from 6. */
INLINE void to_pixels(const vec m[6], vec y[4]) {
  vec sum = m[1] + m[2], apart = m[1] - m[2];
  y[0] = (m[0] + sum) + (m[3] + m[4]);
  y[1] = fma_(splat(-2.f), m[4], fma_(splat(.5f), m[3], apart));
  y[2] = fma_(splat(4.f), m[4], fma_(splat(.25f), m[3], sum));
  y[3] = fma_(splat(-8.f), m[4], fma_(splat(.125f), m[3], apart)) + m[5];
}

/* The weights' transform: 6 numbers from 3. */
static const double TRANSFORM[6][3] = {
    {1, 0, 0},
    {1. / 3, 1. / 3, 1. / 3},
    {-1. / 3, 1. / 3, -1. / 3},
    {-16. / 15, -8. / 15, -4. / 15},
    {1. / 15, -2. / 15, 4. / 15},
    {0, 0, 1},
};

/* One panel of the weights: [plane][panel][input][panel's channels]. */
static void winograd_pack(const ab_layer *l, const float *weight, int32_t panel) {
  enum { WIDEST = VECTORS * LANES };
  const int32_t wide = l->panel, made = least(wide, l->conv.outputs - panel);
  for (int32_t c = 0; c < l->conv.inputs; c++) {
    double w[9][WIDEST] = {{0}}, rows[18][WIDEST];
    for (int32_t k = 0; k < made; k++)
      for (int i = 0; i < 9; i++) w[i][k] = weight[((int64_t)(panel + k) * l->conv.inputs + c) * 9 + i];
    for (int i = 0; i < 18; i++)
      for (int k = 0; k < WIDEST; k++)
        rows[i][k] = TRANSFORM[i / 3][0] * w[i % 3][k] + TRANSFORM[i / 3][1] * w[3 + i % 3][k] +
                     TRANSFORM[i / 3][2] * w[6 + i % 3][k];
    float *to = l->weights + (int64_t)panel * l->inputs + (int64_t)c * wide;
    for (int p = 0; p < PLANES; p++, to += (int64_t)l->outputs * l->inputs) {
      const double *t = TRANSFORM[p % 6];
      for (int k = 0; k < wide; k++)
        to[k] = (float)(t[0] * rows[p / 6 * 3][k] + t[1] * rows[p / 6 * 3 + 1][k] + t[2] * rows[p / 6 * 3 + 2][k]);
    }
  }
}

/* Blocks of tiles that a product takes at once lie together: [plane][block of tiles][inputs / 16][tile][16].
 * The planes are moved against each other a little, or their caches would collide. */
INLINE int64_t plane_size(int32_t channels) { return (int64_t)MOST_TILES * channels + 4 * BLOCK; }

/* The columns of up to PIXELS tiles: 16 channels, first down, then across. `inside`: no pixel is padding. */
INLINE void columns_to_planes(const ab_job *job, const int32_t type, const int clamped, const int inside,
                              const char *const rows[6], const int64_t *columns, int32_t tiles,
                              int64_t channel, int64_t lanes, float *planes) {
  const int64_t plane = plane_size(job->layer->inputs);
  float down[(TILE * PIXELS + 2) * 6 * BLOCK] __attribute__((aligned(64)));
  const vec floor = splat(job->floor);
  for (int32_t k = 0; k < TILE * tiles + 2; k++)
    UNROLL for (int h = 0; h < BLOCK; h += LANES) {
      const norm_t norm = load_norm(job->norm, job->layer->inputs, channel + h);
      vec d[6], r[6];
      UNROLL for (int y = 0; y < 6; y++) {
        d[y] = splat(0);
        if (inside || (rows[y] && columns[k] >= 0)) {
          const char *at = rows[y] + columns[k] + (channel + h) * type_size(type);
          if (lanes - h > 0) d[y] = apply_norm(&norm, clamped, floor, load_from(at, type, lanes - h));
        }
      }
      to_products(d, r);
      UNROLL for (int y = 0; y < 6; y++) store(down + (k * 6 + y) * BLOCK + h, r[y]);
    }
  for (int32_t t = 0; t < tiles; t++)
    UNROLL for (int y = 0; y < 6; y++)
      UNROLL for (int h = 0; h < BLOCK; h += LANES) {
        const float *from = down + (t * TILE * 6 + y) * BLOCK + h;
        vec d[6], r[6];
        UNROLL for (int x = 0; x < 6; x++) d[x] = load(from + x * 6 * BLOCK);
        to_products(d, r);
        UNROLL for (int x = 0; x < 6; x++) store(planes + (y * 6 + x) * plane + t * BLOCK + h, r[x]);
      }
}

#define COLUMNS_TO_PLANES(name, type, clamped, inside)                                                        \
  APART void name(const ab_job *job, const char *const rows[6], const int64_t *columns, int32_t tiles,        \
                  int64_t channel, float *planes) {                                                           \
    columns_to_planes(job, type, clamped, inside, rows, columns, tiles, channel, BLOCK, planes);              \
  }
COLUMNS_TO_PLANES(inside_float, AB_FLOAT32, 0, 1)
COLUMNS_TO_PLANES(inside_half, AB_FLOAT16, 0, 1)
COLUMNS_TO_PLANES(edge_float, AB_FLOAT32, 0, 0)
COLUMNS_TO_PLANES(edge_half, AB_FLOAT16, 0, 0)

/* Whatever is rarer: clamped, or not a whole block of channels. */
APART void any_columns(const ab_job *job, const char *const rows[6], const int64_t *columns, int32_t tiles,
                       int64_t channel, float *planes) {
  const int64_t lanes = job->layer->conv.inputs - channel;
  columns_to_planes(job, job->rows->source_type, job->clamped, 0, rows, columns, tiles, channel, lanes, planes);
}

/* Tiles [begin, begin + tiles) of the tile row whose first output row is `top`. */
static void winograd_input(const ab_job *job, int32_t top, int32_t begin, int32_t tiles, float *planes) {
  const ab_layer *layer = job->layer;
  const ab_rows *r = job->rows;
  const int half = r->source_type == AB_FLOAT16;
  const char *rows[6];
  int rows_inside = 1;
  for (int y = 0; y < 6; y++) {
    /* Below the last row that is asked for anything will do, and there may be none. */
    rows[y] = top - 1 + y > r->stop ? NULL : source_row(job, top - 1 + y);
    rows_inside &= rows[y] != NULL;
  }
  const int32_t blocks = (tiles + PIXELS - 1) / PIXELS;
  for (int32_t b = 0; b < blocks; b++) {
    const int32_t first = piece(tiles, blocks, b), count = piece(tiles, blocks, b + 1) - first;
    int64_t columns[TILE * PIXELS + 2];
    int inside = rows_inside;
    for (int32_t k = 0; k < TILE * count + 2; k++) {
      int64_t x = reached(TILE * (int64_t)(begin + first) - 1 + k, r->width, layer->conv.reflect);
      inside &= x >= 0;
      columns[k] = x < 0 ? -1 : x * layer->conv.inputs * type_size(r->source_type);
    }
    for (int64_t c = 0; c < layer->inputs; c += BLOCK) {
      float *to = planes + (int64_t)first * layer->inputs + c * count;
      if (job->clamped || c + BLOCK > layer->conv.inputs)
        any_columns(job, rows, columns, count, c, to);
      else if (inside)
        (half ? inside_half : inside_float)(job, rows, columns, count, c, to);
      else
        (half ? edge_half : edge_float)(job, rows, columns, count, c, to);
    }
  }
}

static void winograd_products(const ab_job *job, int32_t task, int32_t tiles, const float *from, float *to) {
  const ab_layer *layer = job->layer;
  const product_t *products = layer->panel == BLOCK ? narrow_tile_products : tile_products;
  const int64_t plane_in = plane_size(layer->inputs), plane_out = plane_size(layer->outputs);
  const int32_t blocks = (tiles + PIXELS - 1) / PIXELS;
  const float *weights = layer->weights;
  const int64_t step = (int64_t)layer->inputs * layer->panel;
  const int32_t length = layer->inputs / BLOCK;
  int32_t firsts[MOST_TILES + 1];
  for (int32_t b = 0; b <= blocks; b++) firsts[b] = piece(tiles, blocks, b);
  /* Where the second cache cannot hold all weights, those of the next panel are asked for instead: 15% at 256
   * channels. */
  const int far = layer->numbers * (int64_t)sizeof(float) > 4 << 20;
  ahead_t ahead = {.count = 0};
  if (!far) ahead = look_ahead(job, task, (int64_t)PLANES * (layer->outputs / layer->panel) * blocks * length);
  const int32_t far_lines = (layer->panel + blocks - 1) / blocks;
  for (int p = 0; p < PLANES; p++)
    for (int32_t panel = 0; panel < layer->outputs; panel += layer->panel) {
      for (int32_t b = 0; b < blocks; b++) {
        const int32_t first = firsts[b], count = firsts[b + 1] - first;
        const float *a = from + p * plane_in + (int64_t)first * layer->inputs;
        float *made = to + p * plane_out + (int64_t)panel * tiles + first * layer->panel;
        int32_t lines = far_lines;
        const char *at = far ? (const char *)(weights + step + b * lines * layer->inputs)
                             : lines_ahead(&ahead, length, &lines);
        products[count](&a, 1, 0, length, count * BLOCK, weights, made, at, lines);
      }
      weights += step;
    }
}

/* LANES channels of one tile: 16 pixels, those inside the map stored and counted. */
INLINE void planes_to_pixels(const float *from, int64_t plane, vec bias, const int32_t type, int64_t lanes,
                             const int whole, int32_t height, int32_t width, char *to, int64_t row,
                             int64_t pixel, const int counted, float count, vec *mean, vec *m2) {
  vec half[6][4], y[TILE][TILE];
  UNROLL for (int c = 0; c < 6; c++) {
    vec m[6];
    UNROLL for (int i = 0; i < 6; i++) m[i] = load(from + (i * 6 + c) * plane);
    to_pixels(m, half[c]);
  }
  vec sum = splat(0);
  UNROLL for (int i = 0; i < TILE; i++) {
    vec m[6];
    UNROLL for (int c = 0; c < 6; c++) m[c] = half[c][i];
    to_pixels(m, y[i]);
    UNROLL for (int j = 0; j < TILE; j++) {
      y[i][j] = as_stored(type, y[i][j] + bias);
      if (whole || (i < height && j < width)) {
        store_to(to + i * row + j * pixel, type, lanes, y[i][j]);
        if (counted) sum = sum + y[i][j];
      }
    }
  }
  if (!counted) return;
  const float values = whole ? TILE * TILE : height * width;
  vec own = sum * splat(1 / values), square = splat(0);
  UNROLL for (int i = 0; i < TILE; i++)
    UNROLL for (int j = 0; j < TILE; j++)
      if (whole || (i < height && j < width)) {
        vec apart = y[i][j] - own;
        square = fma_(apart, apart, square);
      }
  merge(mean, m2, count, values, own, square);
}

/* One panel of channels of all tiles. */
INLINE void panel_to_pixels(const ab_job *job, const int32_t type, const int parts, const int counted,
                            int32_t top, int32_t begin, int32_t tiles, int32_t panel, const float *from,
                            float *moments) {
  const ab_layer *layer = job->layer;
  const ab_rows *r = job->rows;
  const int64_t pixel = (int64_t)layer->channels * type_size(type), row = r->made_row * type_size(type);
  const int32_t height = least(TILE, r->stop - top);
  char *to = made_row(r, top) + begin * TILE * pixel + panel * type_size(type);
  vec mean[VECTORS], m2[VECTORS];
  for (int i = 0; i < VECTORS; i++) mean[i] = m2[i] = splat(0);
  float count = 0;
  for (int32_t t = 0; t < tiles; t++) {
    const int32_t width = least(TILE, r->made_width - TILE * (begin + t));
    for (int i = 0; i < layer->panel / LANES; i++) {
      const int h = i * LANES;
      const int64_t lanes = parts ? layer->channels - panel - h : LANES;
      if (parts && lanes <= 0) break;
      const vec bias = load(layer->bias + panel + h);
      const float *at = from + (int64_t)t * layer->panel + h;
      char *pixels = to + t * TILE * pixel + h * type_size(type);
      if (height == TILE && width == TILE)
        planes_to_pixels(at, plane_size(layer->outputs), bias, type, lanes, 1, TILE, TILE, pixels, row, pixel,
                         counted, count, &mean[i], &m2[i]);
      else
        planes_to_pixels(at, plane_size(layer->outputs), bias, type, lanes, 0, height, width, pixels, row,
                         pixel, counted, count, &mean[i], &m2[i]);
    }
    count += height * width;
  }
  if (!counted) return;
  moments[0] = count;
  for (int i = 0; i < layer->panel / LANES; i++) {
    store(moments + BLOCK + panel + i * LANES, mean[i]);
    store(moments + BLOCK + layer->outputs + panel + i * LANES, m2[i]);
  }
}

APART void panel_float(const ab_job *job, int32_t top, int32_t begin, int32_t tiles, int32_t panel,
                       const float *from, float *moments) {
  panel_to_pixels(job, AB_FLOAT32, 0, 0, top, begin, tiles, panel, from, moments);
}
APART void panel_float_counted(const ab_job *job, int32_t top, int32_t begin, int32_t tiles, int32_t panel,
                               const float *from, float *moments) {
  panel_to_pixels(job, AB_FLOAT32, 0, 1, top, begin, tiles, panel, from, moments);
}
APART void panel_half_counted(const ab_job *job, int32_t top, int32_t begin, int32_t tiles, int32_t panel,
                              const float *from, float *moments) {
  panel_to_pixels(job, AB_FLOAT16, 0, 1, top, begin, tiles, panel, from, moments);
}
APART void any_panel(const ab_job *job, int32_t top, int32_t begin, int32_t tiles, int32_t panel,
                     const float *from, float *moments) {
  panel_to_pixels(job, job->rows->made_type, 1, moments != NULL, top, begin, tiles, panel, from, moments);
}

static void winograd_output(const ab_job *job, int32_t top, int32_t begin, int32_t tiles, const float *from,
                            float *moments) {
  const ab_layer *layer = job->layer;
  const int half = job->rows->made_type == AB_FLOAT16;
  for (int32_t panel = 0; panel < layer->outputs; panel += layer->panel) {
    const float *at = from + (int64_t)panel * tiles;
    if (panel + layer->panel > layer->channels || (half && !moments))
      any_panel(job, top, begin, tiles, panel, at, moments);
    else if (half)
      panel_half_counted(job, top, begin, tiles, panel, at, moments);
    else
      (moments ? panel_float_counted : panel_float)(job, top, begin, tiles, panel, at, moments);
  }
}

/* scratch: PLANES planes of what is multiplied, then as many of what comes out. */
static void winograd_task(const ab_job *job, int32_t task, float *scratch) {
  const ab_layer *layer = job->layer;
  const region_t own = region_of(job, task);
  float *products = scratch + PLANES * plane_size(layer->inputs);
  winograd_input(job, own.top, own.left, own.width, scratch);
  winograd_products(job, task, own.width, scratch, products);
  winograd_output(job, own.top, own.left, own.width, products,
                  job->moments ? job->moments + task * moments_size(layer) : NULL);
}

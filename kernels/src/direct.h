/* All other convolutions, multiplied directly. A task is a rectangle of positions: its source pixels are
 * brought together, normed and padded, then each row of positions is one run of products. */

/* The source's rectangle, [row][inputs / 16][column][16], of three channels [row][column][3]. */
typedef struct {
  int32_t rows, columns;
  int64_t row; /* numbers */
} rectangle_t;

static rectangle_t rectangle(const ab_layer *layer, int32_t height, int32_t width) {
  rectangle_t r;
  r.rows = (height - 1) * layer->conv.stride + layer->taps_y;
  r.columns = (width - 1) * layer->step + layer->taps_x;
  r.row = (int64_t)r.columns * layer->inputs;
  return r;
}

INLINE void gather_row(const ab_job *job, const int32_t type, const int parts, const char *row,
                       const int64_t *columns, int32_t count, float *to) {
  const ab_layer *layer = job->layer;
  const vec floor = splat(job->floor);
  for (int64_t c = 0; c < layer->inputs; c += BLOCK)
    UNROLL for (int h = 0; h < BLOCK; h += LANES) {
      const norm_t norm = load_norm(job->norm, layer->inputs, c + h);
      const int64_t lanes = parts ? layer->conv.inputs - c - h : LANES;
      float *at = to + c * count + h;
      for (int32_t x = 0; x < count; x++, at += BLOCK) {
        vec a = splat(0);
        if (columns[x] >= 0 && (!parts || lanes > 0)) {
          a = load_from(row + columns[x] + (c + h) * type_size(type), type, lanes);
          a = apply_norm(&norm, parts ? job->clamped : 0, floor, a);
        }
        store(at, a);
      }
    }
}
APART void gather_float(const ab_job *job, const char *row, const int64_t *columns, int32_t count, float *to) {
  gather_row(job, AB_FLOAT32, 0, row, columns, count, to);
}
APART void gather_half(const ab_job *job, const char *row, const int64_t *columns, int32_t count, float *to) {
  gather_row(job, AB_FLOAT16, 0, row, columns, count, to);
}
APART void gather_any(const ab_job *job, const char *row, const int64_t *columns, int32_t count, float *to) {
  gather_row(job, job->rows->source_type, 1, row, columns, count, to);
}

/* Three channels as they are: whole runs of pixels that lie together. */
static void copy_columns(const char *row, const int64_t *columns, int32_t count, float *to) {
  const int64_t pixel = 3 * sizeof(float);
  for (int32_t x = 0, run; x < count; x += run, to += 3 * run) {
    for (run = 1; x + run < count && columns[x + run] == columns[x] + run * pixel; run++)
      ;
    if (columns[x] < 0)
      memset(to, 0, pixel); /* of padding each one stands alone */
    else
      memcpy(to, row + columns[x], run * pixel);
  }
}

/* Three channels: number by number. */
APART void gather_columns(const ab_job *job, const char *row, const int64_t *columns, int32_t count, float *to) {
  const float *factor = job->norm, *offset = factor + BLOCK, *low = offset + BLOCK, *high = low + BLOCK;
  const int32_t type = job->rows->source_type;
  for (int32_t x = 0; x < count; x++, to += 3) {
    float a[LANES] = {0};
    if (columns[x] < 0) {
      memcpy(to, a, 3 * sizeof(float));
      continue;
    }
    if (type == AB_FLOAT32)
      memcpy(a, row + columns[x], 3 * sizeof(float));
    else
      store(a, load_from(row + columns[x], type, 3));
    for (int c = 0; c < 3; c++) {
      float y = a[c] < low[c] ? low[c] : a[c] > high[c] ? high[c] : a[c];
      y = y * factor[c] + offset[c];
      to[c] = y < job->floor ? job->floor : y;
    }
  }
}

static void direct_input(const ab_job *job, int32_t top, int32_t left, rectangle_t r, float *to) {
  const ab_layer *layer = job->layer;
  const int32_t type = job->rows->source_type;
  int64_t columns[MOST_ACROSS * 5 + 16];
  for (int32_t x = 0; x < r.columns; x++) {
    int64_t at = reached((int64_t)left * layer->step - layer->before + x, job->rows->width, layer->conv.reflect);
    columns[x] = at < 0 ? -1 : at * layer->conv.inputs * type_size(type);
  }
  for (int32_t y = 0; y < r.rows; y++, to += r.row) {
    const char *row = source_row(job, (int64_t)top * layer->conv.stride - layer->before + y);
    if (!row)
      memset(to, 0, r.row * sizeof(float));
    else if (layer->form == COLUMNS && type == AB_FLOAT32 && !job->rows->factor && !job->clamped && !job->rows->relu)
      copy_columns(row, columns, r.columns, to);
    else if (layer->form == COLUMNS)
      gather_columns(job, row, columns, r.columns, to);
    else if (job->clamped || layer->inputs != layer->conv.inputs)
      gather_any(job, row, columns, r.columns, to);
    else
      (type == AB_FLOAT16 ? gather_half : gather_float)(job, row, columns, r.columns, to);
  }
}

static const product_t *direct_products(const ab_layer *layer) {
  const int narrow = layer->panel == BLOCK, two = layer->step == 2;
  if (layer->form == PHASES) return phases_products;
  if (layer->form == COLUMNS)
    return two ? (narrow ? narrow_columns2_products : columns2_products)
               : (narrow ? narrow_columns1_products : columns1_products);
  return two ? (narrow ? narrow2_products : stride2_products) : (narrow ? narrow1_products : stride1_products);
}

/* Products with `taps_y` x `taps_x` taps of `width` positions, whose source begins at `from`; made:
 * [panel][position][panel's channels]. Returns the weights behind those that were used. */
static const float *direct_row(const ab_layer *layer, const float *from, rectangle_t r, int32_t taps_y,
                               int32_t taps_x, const float *weights, int32_t width, float *made,
                               ahead_t *ahead) {
  const product_t *products = direct_products(layer);
  const int columns = layer->form == COLUMNS;
  const int32_t length = columns ? layer->taps_x * layer->inputs : BLOCK;
  const int32_t blocks = columns ? 1 : layer->inputs / BLOCK, across = columns ? 1 : taps_x;
  const int64_t step = columns ? 0 : (int64_t)r.columns * BLOCK, pixel = columns ? layer->inputs : BLOCK;
  const int64_t row_weights = (int64_t)across * blocks * length * layer->panel;
  /* Rows of taps taken together: what the first cache holds of the weights. */
  const int32_t group = most(1, least(taps_y, 5000 / row_weights));
  const int32_t pieces = (width + PIXELS - 1) / PIXELS;
  for (int32_t panel = 0; panel < layer->outputs; panel += layer->panel, made += (int64_t)width * layer->panel) {
    for (int32_t p = 0; p < width; p++)
      for (int h = 0; h < layer->panel; h += LANES)
        store(made + (int64_t)p * layer->panel + h, load(layer->bias + panel + h));
    for (int32_t y = 0; y < taps_y; y += group) {
      const float *taps[64];
      const int32_t rows = least(group, taps_y - y);
      for (int32_t i = 0; i < rows * across; i++)
        taps[i] = from + (y + i / across) * r.row + i % across * BLOCK;
      for (int32_t i = 0; i < pieces; i++) {
        const int32_t first = piece(width, pieces, i), count = piece(width, pieces, i + 1) - first;
        int32_t lines;
        const char *at = lines_ahead(ahead, rows * across * blocks, &lines);
        products[count](taps, rows * across, first * layer->step * pixel, blocks, step, weights,
                        made + (int64_t)first * layer->panel, at, lines);
      }
      weights += rows * row_weights;
    }
  }
  return weights;
}

/* `pixels` pixels of one row, `apart` pixels apart in the map, stored and counted. */
INLINE void store_pixels(const ab_job *job, const int32_t type, const int parts, const float *from, int32_t width,
                         int32_t pixels, char *to, int32_t apart, float *moments) {
  const ab_layer *layer = job->layer;
  const int64_t pixel = (int64_t)apart * layer->channels * type_size(type);
  for (int32_t panel = 0; panel < layer->outputs; panel += layer->panel, from += (int64_t)width * layer->panel)
    for (int h = 0; h < layer->panel; h += LANES) {
      const int64_t lanes = parts ? layer->channels - panel - h : LANES;
      if (parts && lanes <= 0) return;
      char *at = to + (panel + h) * type_size(type);
      vec sum = splat(0);
      for (int32_t i = 0; i < pixels; i++, at += pixel) {
        vec a = as_stored(type, load(from + (int64_t)i * layer->panel + h));
        store_to(at, type, lanes, a);
        sum = sum + a;
      }
      if (!moments) continue;
      vec own = sum * splat(1.f / pixels), square = splat(0);
      for (int32_t i = 0; i < pixels; i++) {
        vec a = as_stored(type, load(from + (int64_t)i * layer->panel + h)) - own;
        square = fma_(a, a, square);
      }
      float *at_mean = moments + BLOCK + panel + h, *at_m2 = at_mean + layer->outputs;
      vec mean = load(at_mean), m2 = load(at_m2);
      merge(&mean, &m2, moments[0], pixels, own, square);
      store(at_mean, mean);
      store(at_m2, m2);
    }
}
APART void store_float(const ab_job *job, const float *from, int32_t width, int32_t pixels, char *to,
                       int32_t apart, float *moments) {
  store_pixels(job, AB_FLOAT32, 0, from, width, pixels, to, apart, moments);
}
APART void store_any(const ab_job *job, const float *from, int32_t width, int32_t pixels, char *to,
                     int32_t apart, float *moments) {
  store_pixels(job, job->rows->made_type, 1, from, width, pixels, to, apart, moments);
}

/* A row of positions becomes pixels of row `y` of the map, from pixel `x` on. */
static void direct_output(const ab_job *job, const float *from, int32_t width, int32_t y, int32_t x, int32_t apart,
                          float *moments) {
  const ab_layer *layer = job->layer;
  const ab_rows *r = job->rows;
  const int64_t size = type_size(r->made_type);
  if (y < r->start || y >= r->stop || x >= r->made_width) return;
  char *row = made_row(r, y);
  if (layer->form == PHASES) { /* the numbers of a position lie together, those of all of them as well */
    const int64_t numbers = layer->phases * layer->channels, end = (int64_t)r->made_width * layer->channels;
    int64_t at = (int64_t)x * layer->channels;
    for (int32_t i = 0; i < width; i++, at += numbers)
      for (int h = 0; h < layer->panel; h += LANES) {
        const int64_t lanes = least(numbers, end - at) - h;
        if (lanes > 0) store_to(row + (at + h) * size, r->made_type, lanes, load(from + i * layer->panel + h));
      }
    return;
  }
  const int32_t pixels = least(width, (r->made_width - x + apart - 1) / apart);
  char *to = row + (int64_t)x * layer->channels * size;
  if (r->made_type == AB_FLOAT32 && layer->channels == layer->outputs)
    store_float(job, from, width, pixels, to, apart, moments);
  else
    store_any(job, from, width, pixels, to, apart, moments);
  if (moments) moments[0] += pixels;
}

APART void squash(float *made, int64_t count) {
  for (int64_t i = 0; i < count; i += LANES) store(made + i, tanh_(load(made + i)));
}

/* Two pixels of either row at a position; the weights lie so that theirs come out one behind the other. */
static void shuffled_output(const ab_job *job, const float *from, int32_t width, int32_t y, int32_t x) {
  const ab_layer *layer = job->layer;
  const ab_rows *r = job->rows;
  const int64_t size = type_size(r->made_type), numbers = 2 * layer->channels;
  const int64_t end = (int64_t)r->made_width * layer->channels, beyond = least(end, (x + width) * numbers);
  for (int32_t i = 0; i < 2; i++) {
    if (2 * y + i < r->start || 2 * y + i >= r->stop) continue;
    char *row = made_row(r, 2 * y + i);
    for (int64_t first = i * numbers; first < (i + 1) * numbers;) {
      const int64_t panel = first / layer->panel, within = first % layer->panel;
      const int64_t count = least((i + 1) * numbers - first, layer->panel - within);
      const float *a = from + panel * width * layer->panel + within;
      int64_t at = x * numbers + first - i * numbers;
      for (int32_t p = 0; p < width && at < end; p++, a += layer->panel, at += numbers) {
        const int64_t lanes = least(count, end - at);
        /* What is too much is overwritten by the next positions. */
        if (r->made_type == AB_FLOAT32 && count == numbers && count <= LANES && at + LANES <= beyond)
          store((float *)row + at, load(a));
        else if (r->made_type == AB_FLOAT32)
          memcpy(row + at * size, a, lanes * sizeof(float));
        else
          for (int64_t k = 0; k < lanes; k += LANES) store_to(row + (at + k) * size, AB_FLOAT16, lanes - k, load(a + k));
      }
      first += count;
    }
  }
}

/* scratch: the source's rectangle, then a row of positions. */
static void direct_task(const ab_job *job, int32_t task, float *scratch) {
  const ab_layer *layer = job->layer;
  const region_t own = region_of(job, task);
  const int32_t top = own.top, bottom = own.bottom, left = own.left, width = own.width;
  float *moments = job->moments ? job->moments + task * moments_size(layer) : NULL;
  const rectangle_t r = rectangle(layer, bottom - top, width);
  float *made = scratch + ROUND_UP(r.rows * r.row, BLOCK);
  if (moments) memset(moments, 0, moments_size(layer) * sizeof(float));
  direct_input(job, top, left, r, scratch);
  const int columns = layer->form == COLUMNS;
  const int64_t taps = layer->form == TRANSPOSED ? 9 : layer->taps_y * (columns ? 1 : layer->taps_x);
  const int64_t products = (int64_t)(bottom - top) * (layer->outputs / layer->panel) * ((width + PIXELS - 1) / PIXELS);
  ahead_t ahead = look_ahead(job, task, products * taps * (columns ? 1 : layer->inputs / BLOCK));
  for (int32_t y = top; y < bottom; y++) {
    const float *from = scratch + (int64_t)(y - top) * layer->conv.stride * r.row, *weights = layer->weights;
    if (layer->form == TRANSPOSED) {
      for (int32_t part = 0; part < 4; part++) {
        weights = direct_row(layer, from, r, 1 + part / 2, 1 + part % 2, weights, width, made, &ahead);
        direct_output(job, made, width, 2 * y + part / 2, 2 * left + part % 2, 2, moments);
      }
    } else {
      direct_row(layer, from, r, layer->taps_y, layer->taps_x, weights, width, made, &ahead);
      if (layer->conv.tanh) squash(made, (int64_t)width * layer->outputs);
      if (layer->conv.shuffled)
        shuffled_output(job, made, width, y, left);
      else
        direct_output(job, made, width, y, left * layer->phases, 1, moments);
    }
  }
}

/* Memory is idle while products are computed, and everything else waits for it. So products ask, block by
 * block, for the cache lines of what their task will write and of what the same thread's next task will read:
 * a task of 64 channels takes 0.8 of the time with it. */

#define MOST_RUNS 32 /* rows that a task writes, and new ones that the next one reads */

typedef struct {
  struct {
    const char *from;
    int64_t lines;
  } runs[MOST_RUNS];
  int32_t count, run;
  int64_t line; /* the next one of that run */
  int32_t each; /* lines for a block of a product */
} ahead_t;

static void look_at(ahead_t *a, const char *from, int64_t bytes) {
  if (from && a->count < MOST_RUNS) {
    a->runs[a->count].from = from;
    a->runs[a->count++].lines = bytes / 64 + 1;
  }
}

/* For a task whose products are of so many blocks all together. */
static ahead_t look_ahead(const ab_job *job, int32_t task, int64_t blocks) {
  const ab_layer *layer = job->layer;
  const ab_rows *r = job->rows;
  const int tiles = layer->form == WINOGRAD;
  const int64_t rows = doubles(layer) ? 2 : 1; /* of a position, and pixels of each */
  const int64_t pixel = layer->channels * type_size(r->made_type);
  const int64_t apart = (tiles ? TILE : rows * layer->phases) * pixel;
  const int64_t read_pixel = layer->conv.inputs * type_size(r->source_type);
  const int64_t read_apart = (tiles ? TILE : layer->step) * read_pixel;
  ahead_t a = {.count = 0};

  const region_t own = region_of(job, task);
  for (int64_t y = most(rows * own.top, r->start); y < least(rows * own.bottom, r->stop); y++)
    look_at(&a, made_row(r, y) + own.left * apart, own.width * apart);
  /* The threads take one task each in turn, about. Its first rows have been read for those above it. */
  task += (int32_t)most(1, r->threads);
  if (task < job->tasks) {
    const region_t next = region_of(job, task);
    const int64_t first = (int64_t)next.top * layer->conv.stride - layer->before;
    const int64_t end = first + (int64_t)(next.bottom - next.top - 1) * layer->conv.stride + layer->taps_y;
    for (int64_t y = first + layer->taps_y - layer->conv.stride; y < end; y++) {
      const char *row = source_row(job, y);
      look_at(&a, row ? row + next.left * read_apart : NULL, next.width * read_apart);
    }
  }
  int64_t lines = 0;
  for (int32_t i = 0; i < a.count; i++) lines += a.runs[i].lines;
  a.each = (int32_t)((lines + blocks - 1) / blocks);
  return a;
}

/* Where the next product, of so many blocks, finds its lines, and how many for each block. */
INLINE const char *lines_ahead(ahead_t *a, int32_t blocks, int32_t *lines) {
  *lines = 0;
  if (a->run == a->count) return NULL;
  const char *from = a->runs[a->run].from + 64 * a->line;
  *lines = a->each;
  a->line += (int64_t)a->each * blocks;
  if (a->line >= a->runs[a->run].lines) {
    a->run++;
    a->line = 0;
  }
  return from;
}

/* The interface: layers, how their weights lie, and how rows are cut into tasks. */

#include <math.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "layer.h"
#include "sets.h"
#include "threads.h"

#define WORKER_BYTES (256 << 10) /* about what the source of a task of the direct form may take: a cache */

int32_t ab_interface(void) { return AB_INTERFACE; }
int32_t ab_threads(void) { return ab_parallel_threads(); }

/* --- memory --- */

#define LARGE_PAGE ((size_t)2 << 20)

/* Pages of 2 MiB where the system has them: weights and maps are taken anew for each run, and taking small pages
 * takes as long as filling them: 4% of a run. */
static void ask_large_pages(void *memory, size_t size) {
#if defined(__linux__)
  const uintptr_t begin = ROUND_UP((uintptr_t)memory, LARGE_PAGE), end = ((uintptr_t)memory + size) & -LARGE_PAGE;
  if (begin < end) madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)size;
#endif
}

#if defined(_WIN32)
static void *take_memory(size_t size) { return malloc(size); }
#else
static void *take_memory(size_t size) {
  void *memory = NULL;
  if (size < LARGE_PAGE) return malloc(size);
  if (posix_memalign(&memory, LARGE_PAGE, ROUND_UP(size, LARGE_PAGE))) return NULL;
  ask_large_pages(memory, ROUND_UP(size, LARGE_PAGE));
  return memory;
}
#endif

/* --- weights --- */

typedef struct {
  const ab_layer *layer;
  const float *weight;
} pack_job;

static void pack_winograd(void *shared, int32_t panel, int32_t worker) {
  const pack_job *job = shared;
  (void)worker;
  job->layer->set->pack(job->layer, job->weight, panel * job->layer->panel);
}

/* [panel][tap row][tap][input][panel's channels]: `at` gives what stands at an output of a position, an input
 * and a tap. The TRANSPOSED form has this four times, with 1, 2, 2 and 4 taps. */
static float *pack_direct(const ab_layer *l, const float *weight, int32_t part, int32_t taps_y, int32_t taps_x,
                          float (*at)(const ab_layer *l, const float *weight, int32_t part, int32_t k, int32_t c,
                                      int32_t y, int32_t x),
                          float *to) {
  for (int32_t panel = 0; panel < l->outputs; panel += l->panel)
    for (int32_t y = 0; y < taps_y; y++)
      for (int32_t x = 0; x < taps_x; x++)
        for (int32_t c = 0; c < l->inputs; c++)
          for (int32_t k = panel; k < panel + l->panel; k++, to++)
            *to = c >= l->conv.inputs ? 0 : at(l, weight, part, k, c, y, x);
  return to;
}

/* The output of the weights that is made as number k of a position: the shuffled ones in the order in which their
 * pixels lie, those of the upper row first. */
static int32_t output_of(const ab_layer *l, int32_t k) {
  if (!l->conv.shuffled) return k % l->conv.outputs;
  const int32_t pixel = k / l->channels; /* of 2x2 */
  return k % l->channels * 4 + pixel;
}

static float plain_weight(const ab_layer *l, const float *weight, int32_t part, int32_t k, int32_t c, int32_t y,
                          int32_t x) {
  const int32_t n = l->conv.kernel, phase = k / l->channels;
  (void)part;
  if (l->form == PHASES) { /* each phase has its taps one column further to the right */
    k %= l->channels;
    x -= phase;
    if (phase >= l->phases || x < 0 || x >= n) return 0;
  }
  if (k >= l->conv.outputs) return 0;
  return weight[(((int64_t)output_of(l, k) * l->conv.inputs + c) * n + y) * n + x];
}

/* Pixel 2j takes the middle tap from pixel j of the source, 2j + 1 the last one from j and the first from
 * j + 1. */
static float transposed_weight(const ab_layer *l, const float *weight, int32_t part, int32_t k, int32_t c,
                               int32_t y, int32_t x) {
  const int32_t tap_y = part / 2 ? 2 - 2 * y : 1, tap_x = part % 2 ? 2 - 2 * x : 1;
  if (k >= l->conv.outputs) return 0;
  return weight[((int64_t)c * l->conv.outputs + k) * 9 + tap_y * 3 + tap_x];
}

/* --- layers --- */

static const ab_set *find_set(const char *name) {
  const ab_set *const *sets = ab_sets();
  for (; *sets; sets++)
    if (!strcmp((*sets)->name, name)) return *sets;
  return NULL;
}

static int known(const ab_conv *c) {
  if (c->inputs < 1 || c->outputs < 1 || c->kernel < 1 || c->kernel > 7 || c->kernel % 2 == 0) return 0;
  if (c->stride != 1 && c->stride != 2) return 0;
  if (c->tanh && (c->transposed || c->normed)) return 0;
  if (c->transposed) return c->kernel == 3 && c->stride == 2 && !c->shuffled && !c->reflect;
  if (c->shuffled) return c->stride == 1 && c->outputs % 4 == 0 && !c->normed;
  return 1;
}

static ab_form choose_form(const ab_conv *c) {
  if (c->transposed) return TRANSPOSED;
  if (c->kernel == 3 && c->stride == 1 && !c->shuffled && !c->tanh) return WINOGRAD;
  if (c->kernel == 7 && c->inputs == 3) return COLUMNS;
  if (c->stride == 1 && c->outputs == 3 && !c->normed) return PHASES;
  return DIRECT;
}

ab_layer *ab_layer_new(const ab_conv *conv, const float *weight, const float *bias, const char *set_name,
                       int32_t threads, void *memory) {
  const ab_set *set = find_set(set_name);
  if (!set || !known(conv)) return NULL;
  ab_layer *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  l->conv = *conv;
  l->set = set;
  l->form = choose_form(conv);
  if (conv->transposed) l->conv.stride = 1; /* from one position to the next */
  l->channels = conv->shuffled ? conv->outputs / 4 : conv->outputs;
  l->phases = l->form == PHASES ? 5 : 1;
  l->panel = conv->outputs * l->phases <= BLOCK ? BLOCK : set->panel;
  l->inputs = l->form == COLUMNS ? conv->inputs : ROUND_UP(conv->inputs, BLOCK);
  l->outputs = ROUND_UP(conv->outputs * l->phases, l->panel);
  l->taps_y = l->form == TRANSPOSED ? 2 : conv->kernel;
  l->taps_x = l->taps_y + l->phases - 1;
  l->before = l->form == TRANSPOSED ? 0 : (conv->kernel - 1) / 2;
  l->step = l->conv.stride * l->phases;
  const int64_t taps = l->form == WINOGRAD ? PLANES : l->form == TRANSPOSED ? 9 : l->taps_y * l->taps_x;
  l->numbers = taps * l->inputs * l->outputs;
  if (!weight) return l;
  l->owned = memory == NULL;
  l->weights = memory ? memory : take_memory((l->numbers + l->outputs) * sizeof(float));
  if (!l->weights) {
    free(l);
    return NULL;
  }
  l->bias = l->weights + l->numbers;
  memset(l->bias, 0, l->outputs * sizeof(float));
  if (l->inputs != conv->inputs) memset(l->weights, 0, l->numbers * sizeof(float));
  for (int32_t k = 0; bias && k < conv->outputs * l->phases; k++) l->bias[k] = bias[output_of(l, k)];
  if (l->form == WINOGRAD) {
    pack_job job = {l, weight};
    ab_parallel(threads, l->outputs / l->panel, pack_winograd, &job);
  } else if (l->form == TRANSPOSED) {
    float *to = l->weights;
    for (int32_t part = 0; part < 4; part++)
      to = pack_direct(l, weight, part, 1 + part / 2, 1 + part % 2, transposed_weight, to);
  } else {
    pack_direct(l, weight, 0, l->taps_y, l->taps_x, plain_weight, l->weights);
  }
  return l;
}

void ab_layer_free(ab_layer *layer) {
  if (layer && layer->owned) free(layer->weights);
  free(layer);
}

int64_t ab_layer_bytes(const ab_layer *layer) { return (layer->numbers + layer->outputs) * (int64_t)sizeof(float); }

/* --- tasks --- */

/* How rows [start, stop) of a map of `width` are cut. */
static ab_job cut(const ab_layer *l, int32_t start, int32_t stop, int32_t width, int32_t threads) {
  ab_job job = {.layer = l, .top = start, .height = stop - start};
  int64_t across, numbers;
  if (l->form == WINOGRAD) {
    job.width = (width + TILE - 1) / TILE;
    job.down = TILE;
    across = MOST_TILES - 2;
    numbers = PLANES * ((int64_t)MOST_TILES * (l->inputs + l->outputs) + 8 * BLOCK);
  } else {
    if (doubles(l)) {
      job.top = start / 2;
      job.height = (stop + 1) / 2 - job.top;
      width = (width + 1) / 2;
    }
    job.width = (width + l->phases - 1) / l->phases;
    job.down = l->conv.kernel > 3 ? 8 : 4;
    const int64_t rows = (job.down - 1) * l->conv.stride + l->taps_y;
    across = WORKER_BYTES / (rows * l->step * l->inputs * (int64_t)sizeof(float));
    across = most(6, least(across, MOST_ACROSS));
    numbers = rows * ((across - 1) * l->step + l->taps_x) * l->inputs + across * l->outputs + 2 * BLOCK;
  }
  const int64_t bands = (job.height + job.down - 1) / job.down;
  job.pieces = (job.width + across - 1) / across;
  /* Two tasks for each thread at least, if they do not become too small. */
  const int64_t wanted = (2 * (int64_t)threads + bands - 1) / bands;
  if (threads > 1) job.pieces = most(job.pieces, least(wanted, job.width / 12));
  job.tasks = bands * job.pieces;
  job.scratch_each = ROUND_UP(numbers * (int64_t)sizeof(float), 64) + 64;
  return job;
}

static int64_t norm_size(const ab_layer *l) { return 4 * (int64_t)ROUND_UP(l->inputs, BLOCK); }

int64_t ab_scratch_bytes(const ab_layer *layer, int32_t rows, int32_t made_width, int32_t threads) {
  /* Rows that begin at an odd one may touch one more row of positions. */
  const ab_job job = cut(layer, 1, 1 + rows, made_width, threads), even = cut(layer, 0, rows, made_width, threads);
  const int64_t tasks = most(job.tasks, even.tasks), shared = norm_size(layer) + tasks * moments_size(layer);
  return 64 + ROUND_UP(shared * (int64_t)sizeof(float), 64) + most(1, threads) * job.scratch_each;
}

/* factor, offset, low and high of `channels`, each rounded up to whole blocks. */
static void fill_norm(const float *factor, const float *offset, const float *low, const float *high,
                      int32_t channels, float *norm) {
  const int32_t size = ROUND_UP(channels, BLOCK);
  for (int32_t c = 0; c < size; c++) {
    const int there = c < channels;
    norm[c] = !there ? 0 : factor ? factor[c] : 1;
    norm[size + c] = there && factor ? offset[c] : 0;
    norm[2 * size + c] = there && low ? low[c] : -INFINITY;
    norm[3 * size + c] = there && low ? high[c] : INFINITY;
  }
}

static void one_task(void *shared, int32_t task, int32_t worker) {
  const ab_job *job = shared;
  float *scratch = (float *)(job->scratch + worker * job->scratch_each);
  (job->layer->form == WINOGRAD ? job->layer->set->winograd : job->layer->set->direct)(job, task, scratch);
}

/* Whether the source has every row that [start, stop) is made of. */
static int rows_missing(const ab_layer *l, const ab_rows *r) {
  const int64_t start = doubles(l) ? r->start / 2 : r->start, stop = doubles(l) ? (r->stop + 1) / 2 : r->stop;
  const int64_t first = start * l->conv.stride - l->before;
  int64_t last = (stop - 1) * l->conv.stride - l->before + l->taps_y;
  if (l->form == TRANSPOSED && r->stop % 2) last--; /* the last row is made of one row alone */
  for (int64_t y = first; y < last; y++) {
    int64_t at = reached(y, r->height, l->conv.reflect);
    if (at >= 0 && (at < r->first || at >= r->last)) return 1;
  }
  return 0;
}

int32_t ab_run(const ab_layer *layer, const ab_rows *rows) {
  if (!layer->weights) return AB_NO_WEIGHTS;
  if (rows->stop <= rows->start || rows->made_width < 1) return AB_DONE;
  if (rows_missing(layer, rows)) return AB_MISSING_ROWS;
  if (rows->mean && !layer->conv.normed) return AB_NO_MOMENTS;
  const int32_t threads = (int32_t)most(1, rows->threads);
  ask_large_pages(rows->made, (rows->stop - rows->start) * rows->made_row * type_size(rows->made_type));
  ab_job job = cut(layer, rows->start, rows->stop, rows->made_width, threads);
  float *shared = (float *)(((uintptr_t)rows->scratch + 63) / 64 * 64);
  fill_norm(rows->factor, rows->offset, rows->low, rows->high, layer->conv.inputs, shared);
  job.rows = rows;
  job.norm = shared;
  job.floor = rows->relu ? 0 : -INFINITY;
  job.clamped = rows->low != NULL;
  if (rows->mean) job.moments = shared + norm_size(layer);
  const int64_t used = norm_size(layer) + (int64_t)job.tasks * moments_size(layer);
  job.scratch = (char *)shared + ROUND_UP(used * (int64_t)sizeof(float), 64);
  ab_parallel(threads, job.tasks, one_task, &job);

  if (!rows->mean) return AB_DONE;
  /* In the order of the tasks, so that the result does not depend on who did which. */
  double count = 0;
  for (int32_t c = 0; c < layer->channels; c++) rows->mean[c] = rows->m2[c] = 0;
  for (int32_t task = 0; task < job.tasks; task++) {
    const float *m = job.moments + task * moments_size(layer);
    const double more = m[0], share = more / (count + more);
    if (more == 0) continue;
    for (int32_t c = 0; c < layer->channels; c++) {
      const double apart = m[BLOCK + c] - rows->mean[c];
      rows->mean[c] += apart * share;
      rows->m2[c] += m[BLOCK + layer->outputs + c] + apart * apart * count * share;
    }
    count += more;
  }
  return AB_DONE;
}

/* --- sums --- */

#define SUM_PIXELS 512 /* of a task */

typedef struct {
  const ab_sum *sum;
  const ab_set *set;
  const float *norm;
} sum_job;

static void one_sum(void *shared, int32_t task, int32_t worker) {
  const sum_job *job = shared;
  (void)worker;
  const int64_t begin = (int64_t)task * SUM_PIXELS;
  job->set->settle(job->sum, job->norm, begin, least(begin + SUM_PIXELS, job->sum->pixels));
}

int32_t ab_settle(const ab_sum *sum, const char *set_name) {
  const ab_set *set = find_set(set_name);
  float *norm = malloc(4 * (size_t)ROUND_UP(sum->channels, BLOCK) * sizeof(float));
  if (!set || !norm) {
    free(norm);
    return AB_MISSING_ROWS;
  }
  fill_norm(sum->factor, sum->offset, sum->low, sum->high, sum->channels, norm);
  sum_job job = {sum, set, norm};
  ab_parallel(sum->threads, (int32_t)((sum->pixels + SUM_PIXELS - 1) / SUM_PIXELS), one_sum, &job);
  free(norm);
  return AB_DONE;
}

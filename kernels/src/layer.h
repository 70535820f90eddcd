/* What the files of this library share: a layer, the work on some rows of it, and an instruction set. */
#ifndef AB_LAYER_H
#define AB_LAYER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "animebg_kernels.h"

#define BLOCK 16 /* channels that lie together in whatever is multiplied, on every instruction set */
#define TILE 4   /* Winograd: squares of 4x4 outputs from 6x6 inputs, by 36 products */
#define PLANES 36
#define MOST_TILES 32  /* of a task */
#define MOST_ACROSS 96 /* positions of a task of the direct form, side by side */

#define ROUND_UP(a, b) (((a) + (b) - 1) / (b) * (b))

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* How a convolution is computed. All but the first multiply directly, at every "position": an output pixel,
 * or a group of them. */
typedef enum {
  WINOGRAD,   /* 3x3 of stride 1, without tanh */
  DIRECT,     /* any: a position is a pixel, or the 2x2 that one is shuffled to */
  COLUMNS,    /* three channels in, 7x7: the 21 numbers of a row lie together already */
  PHASES,     /* three channels out: five pixels side by side make 15 */
  TRANSPOSED, /* a position is 2x2 pixels, each of them a convolution of its own of 1, 2 or 4 taps */
} ab_form;

typedef struct ab_job ab_job;

typedef struct {
  const char *name;
  int32_t panel; /* output channels that a product makes at once */
  void (*pack)(const ab_layer *layer, const float *weight, int32_t panel);
  void (*winograd)(const ab_job *job, int32_t task, float *scratch);
  void (*direct)(const ab_job *job, int32_t task, float *scratch);
  void (*settle)(const ab_sum *sum, const float *norm, int64_t begin, int64_t end);
} ab_set;

struct ab_layer {
  ab_conv conv;
  const ab_set *set;
  ab_form form;
  int32_t channels; /* of the map that is made */
  int32_t inputs;   /* rounded up to whole blocks (COLUMNS: as they are) */
  int32_t outputs;  /* of a position, rounded up to whole panels */
  int32_t panel;
  /* The direct forms. */
  int32_t before;  /* padding */
  int32_t taps_y, taps_x;
  int32_t step;    /* source pixels from one position to the next: down it is conv.stride */
  int32_t phases;  /* output pixels of a position, side by side */
  int64_t numbers; /* of the weights */
  float *weights, *bias; /* bias: [outputs] */
  int owned;             /* the memory of both */
};

struct ab_job {
  const ab_layer *layer;
  const ab_rows *rows;
  /* The norm, for whole blocks of channels: factor, offset, low, high. What is padded comes out as 0. */
  const float *norm;
  float floor; /* 0 for a ReLU */
  int clamped;
  /* The work is a grid of tasks: of tile rows (or position rows) and pieces of them. */
  int32_t top;    /* the first position row */
  int32_t height; /* position rows, or output rows for tiles */
  int32_t width;  /* positions, or tiles, side by side */
  int32_t down;   /* position rows of a task */
  int32_t pieces; /* that a row is cut into */
  int32_t tasks;
  /* Of each task: a count, then mean and centred second moment of each of [outputs]. NULL if not wanted. */
  float *moments;
  char *scratch;
  int64_t scratch_each;
};

/* The positions of a task: their rows [top, bottom), of tiles those of the output, and how many side by side. */
typedef struct {
  int32_t top, bottom, left, width;
} region_t;

/* Where piece `i` begins when so many are cut evenly into `pieces`. */
static inline int32_t piece(int32_t count, int32_t pieces, int32_t i) { return (int64_t)count * i / pieces; }

static inline region_t region_of(const ab_job *job, int32_t task) {
  const int32_t top = job->top + task / job->pieces * job->down, i = task % job->pieces;
  const int32_t left = piece(job->width, job->pieces, i);
  return (region_t){top, (int32_t)least(top + job->down, job->top + job->height), left,
                    piece(job->width, job->pieces, i + 1) - left};
}

static inline int64_t moments_size(const ab_layer *layer) { return BLOCK + 2 * (int64_t)layer->outputs; }

static inline int type_size(int32_t type) { return type == AB_FLOAT16 ? 2 : 4; }

/* Where a row or column of the source lies: mirrored at the borders, or -1 for zeros. */
static inline int64_t reached(int64_t at, int64_t size, int reflect) {
  if (at >= 0 && at < size) return at;
  if (!reflect) return -1;
  at = at < 0 ? -at : 2 * (size - 1) - at;
  return most(0, least(at, size - 1)); /* of a map that is smaller than its padding: the edge */
}

/* The first number of a row of the source, or NULL where it is zeros or was not given. */
static inline const char *source_row(const ab_job *job, int64_t y) {
  const ab_rows *r = job->rows;
  y = reached(y, r->height, job->layer->conv.reflect);
  if (y < r->first || y >= r->last) return NULL;
  return (const char *)r->source + (y - r->first) * r->source_row * type_size(r->source_type);
}

/* The first number of row `y`, one of [start, stop), of the map that is made. */
static inline char *made_row(const ab_rows *r, int64_t y) {
  return (char *)r->made + (y - r->start) * r->made_row * type_size(r->made_type);
}

/* Whether a position is 2x2 pixels. */
static inline int doubles(const ab_layer *layer) { return layer->form == TRANSPOSED || layer->conv.shuffled; }

#endif

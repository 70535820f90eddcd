/* Convolutions of the AnimeBG networks on a CPU, each fused with what stands around it: the norm, the
 * ReLU and the padding of what it reads, and the moments or the tanh of what it makes.
 *
 * A plain C interface over pointers, so that one library for a platform serves every Python and every
 * torch. Maps are one image in NHWC: rows of pixels, the channels of a pixel together. Every function may
 * be called from several threads at once.
 */
#ifndef ANIMEBG_KERNELS_H
#define ANIMEBG_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define AB_API __declspec(dllexport)
#else
#define AB_API __attribute__((visibility("default")))
#endif

/* Counts the changes of what stands here; the loader refuses another number. */
#define AB_INTERFACE 2

/* What the numbers of a map are stored in. */
enum { AB_FLOAT32 = 0, AB_FLOAT16 = 1 };

/* What ab_run answers. */
enum {
  AB_DONE = 0,
  AB_MISSING_ROWS = 1, /* the source rows at hand are not all that the wanted rows are made of */
  AB_NO_MOMENTS = 2,   /* made for a convolution that no norm follows */
  AB_NO_WEIGHTS = 3,   /* made without */
};

typedef struct ab_layer ab_layer;

/* A convolution. Padding is (kernel - 1) / 2 on every side. A transposed one has kernel 3, stride 2 and
 * output padding 1; of a shuffled one each four channels become the 2 x 2 pixels of one: both double. */
typedef struct {
  int32_t kernel; /* odd */
  int32_t stride; /* 1 or 2 */
  int32_t transposed;
  int32_t shuffled;
  int32_t reflect; /* padding by reflection, else by zeros */
  int32_t normed;  /* a norm follows: moments are wanted */
  int32_t tanh;    /* it follows; not behind a transposed one, nor before a norm */
  int32_t inputs;  /* channels */
  int32_t outputs; /* channels of the weights: shuffled, four times those of the map */
} ab_conv;

/* Rows [start, stop) of a map, to be made from rows of the map before it. */
typedef struct {
  const void *source;   /* the first number of row `first` */
  int64_t source_row;   /* numbers from one row to the next */
  int32_t source_type;  /* AB_FLOAT32 or AB_FLOAT16 */
  int32_t first, last;  /* the rows at hand: [first, last) */
  int32_t height, width; /* of the whole source */

  /* The norm to read through, y * factor + offset of y clamped to [low, high], each [inputs], and the
   * ReLU behind it. NULL for none; padding is not normed. */
  const float *factor, *offset, *low, *high;
  int32_t relu;

  int32_t start, stop;
  int32_t made_width; /* the map may be cut to this on the right */
  int32_t made_type;
  void *made;       /* the first number of row `start` */
  int64_t made_row; /* numbers from one row to the next */

  /* Mean and centred second moment of each channel over these rows; NULL if not wanted. */
  double *mean, *m2;

  void *scratch; /* ab_scratch_bytes of it, or more */
  int32_t threads;
} ab_rows;

/* Pixels brought to their final values in place: map = norm(map), or map + norm(branch), then perhaps the
 * ReLU of it. */
typedef struct {
  void *map;
  const void *branch; /* NULL: the map itself is normed */
  int32_t type;       /* of both */
  int32_t channels;
  int64_t pixels;
  const float *factor, *offset, *low, *high; /* as above, but factor and offset are needed */
  int32_t relu;
  int32_t threads;
} ab_sum;

AB_API int32_t ab_interface(void);

/* The instruction sets of this library that this processor has, the fastest first: "avx512 avx2". Empty if
 * there is none: then no layer can be made. */
AB_API const char *ab_instruction_sets(void);

/* A convolution made ready, its weights copied in the order in which they are read.
 *
 * weight: [outputs, inputs, kernel, kernel], transposed [inputs, outputs, 3, 3]; NULL: the layer only tells
 * what it would take. bias: [outputs] or NULL.
 * memory: ab_layer_bytes of it, which must outlive the layer; NULL: it takes its own.
 * set: one of ab_instruction_sets. NULL: such a convolution or set is not known, or memory ran out. */
AB_API ab_layer *ab_layer_new(const ab_conv *conv, const float *weight, const float *bias, const char *set,
                              int32_t threads, void *memory);
AB_API void ab_layer_free(ab_layer *layer);

/* Bytes of the weights that a layer holds, or would. */
AB_API int64_t ab_layer_bytes(const ab_layer *layer);

/* Bytes that ab_run needs beside the maps to make `rows` rows of a map of `made_width`. */
AB_API int64_t ab_scratch_bytes(const ab_layer *layer, int32_t rows, int32_t made_width, int32_t threads);

AB_API int32_t ab_run(const ab_layer *layer, const ab_rows *rows);

/* Returns AB_DONE, or AB_MISSING_ROWS for a set that is not there. */
AB_API int32_t ab_settle(const ab_sum *sum, const char *set);

/* How many threads the library keeps, all of them asleep unless ab_run or ab_settle is at work. */
AB_API int32_t ab_threads(void);

#endif

/* The kernels against plain loops in double, with nothing but C: for valgrind, the address sanitiser and
 * processors that are emulated. `check SET FIRST LAST` runs random cases; test_checked.py builds and runs it.
 * Every buffer is exactly as large as it has to be. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/animebg_kernels.h"

static uint64_t state;
static uint32_t random_bits(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}
static int among(int low, int high) { return low + (int)(random_bits() % (uint32_t)(high - low + 1)); }
static float normal(void) { return (float)((random_bits() % 20001) / 10000.0 - 1); }

static float *floats(size_t count) {
  float *made = malloc(count * sizeof *made);
  for (size_t i = 0; i < count; i++) made[i] = normal();
  return made;
}

/* Values that half precision holds exactly, so that both types are read as the same numbers. */
static uint16_t to_half(float a) {
  union {
    float f;
    uint32_t u;
  } v = {a};
  const uint32_t sign = v.u >> 16 & 0x8000;
  const int exponent = (int)(v.u >> 23 & 255) - 112;
  return exponent <= 0 ? (uint16_t)sign : (uint16_t)(sign | (uint32_t)exponent << 10 | (v.u >> 13 & 1023));
}
static float from_half(uint16_t h) {
  const int exponent = h >> 10 & 31;
  const float a = exponent ? ldexpf((float)(1024 + (h & 1023)), exponent - 25) : ldexpf((float)(h & 1023), -24);
  return h & 0x8000 ? -a : a;
}

static int mirrored(int at, int size, int reflect) {
  if (at >= 0 && at < size) return at;
  if (!reflect) return -1;
  at = at < 0 ? -at : 2 * (size - 1) - at;
  return at < 0 ? 0 : at >= size ? size - 1 : at;
}

typedef struct {
  ab_conv conv;
  int height, width, half_in, half_out;
  float *source, *weight, *bias, *norm[4];
  int normed, clamped, relu;
} given;

static double read_at(const given *g, int y, int x, int c) {
  y = mirrored(y, g->height, g->conv.reflect);
  x = mirrored(x, g->width, g->conv.reflect);
  if (y < 0 || x < 0) return 0;
  double a = g->source[((size_t)y * g->width + x) * g->conv.inputs + c];
  if (g->clamped) a = fmin(fmax(a, g->norm[2][c]), g->norm[3][c]);
  if (g->normed) a = a * g->norm[0][c] + g->norm[1][c];
  return g->relu && a < 0 ? 0 : a;
}

static double expected(const given *g, int y, int x, int k) {
  const ab_conv *v = &g->conv;
  double sum;
  if (v->transposed) {
    sum = g->bias[k];
    for (int ky = 0; ky < 3; ky++)
      for (int kx = 0; kx < 3; kx++) {
        if ((y + 1 - ky) % 2 || (x + 1 - kx) % 2) continue;
        for (int c = 0; c < v->inputs; c++)
          sum += g->weight[((size_t)c * v->outputs + k) * 9 + ky * 3 + kx] *
                 read_at(g, (y + 1 - ky) / 2, (x + 1 - kx) / 2, c);
      }
    return sum;
  }
  if (v->shuffled) {
    k = 4 * k + 2 * (y % 2) + x % 2;
    y /= 2;
    x /= 2;
  }
  const int n = v->kernel, pad = (n - 1) / 2;
  sum = g->bias[k];
  for (int c = 0; c < v->inputs; c++)
    for (int ky = 0; ky < n; ky++)
      for (int kx = 0; kx < n; kx++)
        sum += g->weight[(((size_t)k * v->inputs + c) * n + ky) * n + kx] *
               read_at(g, y * v->stride - pad + ky, x * v->stride - pad + kx, c);
  return v->tanh ? tanh(sum) : sum;
}

static int check(const char *set, uint64_t seed) {
  static const int kernels[][2] = {{3, 1}, {3, 1}, {3, 2}, {1, 1}, {5, 1}, {7, 2}, {7, 1}};
  state = seed * 7919 + 1;
  for (int i = 0; i < 8; i++) random_bits();
  given g = {0};
  const int kind = among(0, 6), *shape = kernels[among(0, 6)];
  ab_conv *v = &g.conv;
  *v = (ab_conv){shape[0], shape[1], 0, 0, among(0, 1), among(0, 1), 0, among(1, 36), among(1, 36)};
  if (kind == 0) *v = (ab_conv){3, 2, 1, 0, 0, v->normed, 0, v->inputs, v->outputs};
  if (kind == 1) *v = (ab_conv){3, 1, 0, 1, v->reflect, 0, among(0, 1), v->inputs, 4 * among(1, 8)};
  if (kind == 2) *v = (ab_conv){7, among(1, 2), 0, 0, v->reflect, v->normed, 0, 3, v->outputs};
  if (kind == 3) *v = (ab_conv){v->kernel, 1, 0, 0, v->reflect, 0, among(0, 1), v->inputs, 3};
  if (kind > 3 && !v->normed) v->tanh = among(0, 1);
  g.height = among(1, 14);
  g.width = among(1, among(0, 9) ? 14 : 130);
  g.normed = among(0, 1);
  g.clamped = g.normed && among(0, 2) == 0;
  g.relu = among(0, 1);
  g.half_in = among(0, 2) == 0;
  g.half_out = among(0, 2) == 0;
  const size_t pixels = (size_t)g.height * g.width;
  g.source = floats(pixels * v->inputs);
  g.weight = floats((size_t)v->inputs * v->outputs * v->kernel * v->kernel);
  g.bias = floats(v->outputs);
  for (int i = 0; i < 4; i++) g.norm[i] = floats(v->inputs);
  for (int c = 0; c < v->inputs; c++) {
    g.norm[2][c] = -fabsf(g.norm[2][c]);
    g.norm[3][c] = fabsf(g.norm[3][c]);
  }
  for (size_t i = 0; i < pixels * v->inputs; i++) g.source[i] = from_half(to_half(g.source[i]));

  const int doubles = v->transposed || v->shuffled;
  const int made_height = doubles ? 2 * g.height : (g.height + v->stride - 1) / v->stride;
  int width = doubles ? 2 * g.width : (g.width + v->stride - 1) / v->stride;
  if (width > 1 && among(0, 3) == 0) width--;
  const int channels = v->shuffled ? v->outputs / 4 : v->outputs;
  ab_layer *layer = ab_layer_new(v, g.weight, g.bias, set, among(1, 2), NULL);
  if (!layer) return printf("case %d: no layer\n", (int)seed), 1;

  int bad = 0, strip;
  for (int start = 0; start < made_height && !bad; start += strip) {
    strip = among(1, made_height - start);
    if (among(0, 2) == 0) strip = 1;
    const int stop = start + strip, pad = v->transposed ? 0 : (v->kernel - 1) / 2;
    int first = g.height, last = 0;
    const int from = doubles ? start / 2 - pad : start * v->stride - pad;
    const int to = v->transposed ? (stop - 1) / 2 + 1 + (stop % 2 == 0)
                   : v->shuffled ? (stop + 1) / 2 + pad
                                 : (stop - 1) * v->stride - pad + v->kernel;
    for (int y = from; y < to; y++) {
      const int at = mirrored(y, g.height, v->reflect);
      if (at < 0) continue;
      if (at < first) first = at;
      if (at + 1 > last) last = at + 1;
    }
    const size_t row = (size_t)g.width * v->inputs, count = last > first ? (last - first) * row : 0;
    void *source = malloc(count * (g.half_in ? 2 : 4));
    for (size_t i = 0; i < count; i++) {
      if (g.half_in)
        ((uint16_t *)source)[i] = to_half(g.source[first * row + i]);
      else
        ((float *)source)[i] = g.source[first * row + i];
    }
    const size_t numbers = (size_t)strip * width * channels;
    void *made = malloc(numbers * (g.half_out ? 2 : 4));
    double *moments = malloc(2 * channels * sizeof(double));
    const int threads = among(1, 3);
    void *scratch = malloc(ab_scratch_bytes(layer, strip, width, threads));
    ab_rows r = {0};
    r.source = source;
    r.source_row = row;
    r.source_type = g.half_in;
    r.first = first;
    r.last = last;
    r.height = g.height;
    r.width = g.width;
    if (g.normed) r.factor = g.norm[0], r.offset = g.norm[1];
    if (g.clamped) r.low = g.norm[2], r.high = g.norm[3];
    r.relu = g.relu;
    r.start = start;
    r.stop = stop;
    r.made_width = width;
    r.made_type = g.half_out;
    r.made = made;
    r.made_row = (int64_t)width * channels;
    if (v->normed) r.mean = moments, r.m2 = moments + channels;
    r.scratch = scratch;
    r.threads = threads;
    const int answer = ab_run(layer, &r);
    if (answer) bad = 1, printf("case %d: answer %d\n", (int)seed, answer);
    for (int k = 0; k < channels && !bad; k++) {
      double mean = 0, square = 0;
      const int n = strip * width;
      for (int i = 0; i < n; i++) {
        const size_t at = (size_t)i * channels + k;
        const double got = g.half_out ? from_half(((uint16_t *)made)[at]) : ((float *)made)[at];
        const double want = expected(&g, start + i / width, i % width, k);
        /* Sums of up to 1800 products of numbers below 2; half precision: 2^-11 of it. */
        const double bound = 3e-4 + (g.half_out ? fabs(want) / 1000 : 0);
        if (!(fabs(got - want) <= bound) && !bad++)
          printf("case %d: row %d column %d channel %d: %g, not %g\n", (int)seed, start + i / width, i % width, k,
                 got, want);
        const double apart = got - mean;
        mean += apart / (i + 1);
        square += apart * (got - mean);
      }
      if (v->normed && !bad &&
          !(fabs(r.mean[k] - mean) <= 1e-4 && fabs(r.m2[k] - square) <= 1e-4 * square + 1e-6 * n))
        bad = 1, printf("case %d: moments %g %g, not %g %g\n", (int)seed, r.mean[k], r.m2[k], mean, square);
    }
    free(source), free(made), free(moments), free(scratch);
  }
  ab_layer_free(layer);
  free(g.source), free(g.weight), free(g.bias);
  for (int i = 0; i < 4; i++) free(g.norm[i]);
  return bad;
}

int main(int count, char **arguments) {
  if (count != 4) return printf("%s\n", ab_instruction_sets()), 2;
  int bad = 0;
  for (int seed = atoi(arguments[2]); seed < atoi(arguments[3]); seed++) bad += check(arguments[1], seed);
  printf("%d cases are wrong\n", bad);
  return bad != 0;
}

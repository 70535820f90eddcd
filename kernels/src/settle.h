/* A map brought to its final values in one pass over memory. */

INLINE void settle_pixels(const ab_sum *s, const int32_t type, const int parts, const float *norm, int64_t begin,
                          int64_t end) {
  const int64_t channels = ROUND_UP(s->channels, BLOCK), size = type_size(type);
  const vec floor = splat(s->relu ? 0 : -__builtin_inff()), none = splat(-__builtin_inff());
  for (int64_t p = begin; p < end; p++)
    for (int64_t c = 0; c < s->channels; c += LANES) {
      const int64_t lanes = parts ? s->channels - c : LANES, at = (p * s->channels + c) * size;
      const norm_t n = load_norm(norm, channels, c);
      char *map = (char *)s->map + at;
      const vec kept = load_from(map, type, lanes);
      vec a = apply_norm(&n, 1, none, s->branch ? load_from((const char *)s->branch + at, type, lanes) : kept);
      if (s->branch) a = a + kept;
      store_to(map, type, lanes, larger(a, floor));
    }
}
APART void settle_float(const ab_sum *s, const float *norm, int64_t begin, int64_t end) {
  settle_pixels(s, AB_FLOAT32, 0, norm, begin, end);
}
APART void settle_half(const ab_sum *s, const float *norm, int64_t begin, int64_t end) {
  settle_pixels(s, AB_FLOAT16, 0, norm, begin, end);
}

/* norm: four times the channels, rounded up to whole blocks. */
static void settle(const ab_sum *s, const float *norm, int64_t begin, int64_t end) {
  if (s->channels % LANES)
    settle_pixels(s, s->type, 1, norm, begin, end);
  else
    (s->type == AB_FLOAT16 ? settle_half : settle_float)(s, norm, begin, end);
}

#define AB_SET(name) {name, VECTORS * LANES, winograd_pack, winograd_task, direct_task, settle}

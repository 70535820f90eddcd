/* Vectors of 4 with NEON, which every 64-bit ARM processor has. */
#include <arm_neon.h>

#define LANES 4
#define VECTORS 4
#define PIXELS 6

typedef float32x4_t vec;

static inline vec load(const float *p) { return vld1q_f32(p); }
static inline void store(float *p, vec a) { vst1q_f32(p, a); }
static inline vec splat(float a) { return vdupq_n_f32(a); }
static inline vec fma_(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec larger(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec smaller(vec a, vec b) { return vminq_f32(a, b); }
static inline vec load_half(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline vec round_half(vec a) { return vcvt_f32_f16(vcvt_f16_f32(a)); }
static inline void store_half(uint16_t *p, vec a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }

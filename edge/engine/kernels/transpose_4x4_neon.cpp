#include <arm_neon.h>

#include "kernels/kernels.h"

namespace modiff {
namespace {

void transpose_block(const float* in, ptrdiff_t in_stride, float* out, ptrdiff_t out_stride) {
  const float32x4_t r0 = vld1q_f32(in);
  const float32x4_t r1 = vld1q_f32(in + in_stride);
  const float32x4_t r2 = vld1q_f32(in + 2 * in_stride);
  const float32x4_t r3 = vld1q_f32(in + 3 * in_stride);
  const float64x2_t low01 = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1));
  const float64x2_t high01 = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
  const float64x2_t low23 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3));
  const float64x2_t high23 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
  vst1q_f32(out, vreinterpretq_f32_f64(vtrn1q_f64(low01, low23)));
  vst1q_f32(out + out_stride, vreinterpretq_f32_f64(vtrn1q_f64(high01, high23)));
  vst1q_f32(out + 2 * out_stride, vreinterpretq_f32_f64(vtrn2q_f64(low01, low23)));
  vst1q_f32(out + 3 * out_stride, vreinterpretq_f32_f64(vtrn2q_f64(high01, high23)));
}

}  // namespace

void transpose_4x4_neon(const float* in, ptrdiff_t in_stride, int rows, int columns, float* out,
                        ptrdiff_t out_stride) {
  const int whole_rows = rows & ~3;
  const int whole_columns = columns & ~3;
  for (int r = 0; r < whole_rows; r += 4) {
    for (int c = 0; c < whole_columns; c += 4) {
      transpose_block(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
    }
  }
  if (whole_columns < columns && whole_rows > 0) {
    transpose_portable(in + whole_columns, in_stride, whole_rows, columns - whole_columns,
                       out + whole_columns * out_stride, out_stride);
  }
  if (whole_rows < rows) {
    transpose_portable(in + whole_rows * in_stride, in_stride, rows - whole_rows, columns, out + whole_rows,
                       out_stride);
  }
}

}  // namespace modiff

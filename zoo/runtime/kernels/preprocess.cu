// A frame (H, W, 3) of uint8 to a normalised network input (3, H, W), one thread per output pixel.
// The resampling tables come from the host, so that the arithmetic here is that of cv2 and Pillow, bit by bit.

typedef unsigned char uint8;

// Stores `value` as float32, or as float16 when `half` is set.
__device__ void store(void *output, size_t index, float value, int half)
{
    if (!half) {
        ((float *)output)[index] = value;
        return;
    }
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    ((unsigned short *)output)[index] = bits;
}

// One axis of a resampling, whose output i is the weighted sum of `taps` pixels from starts[i] on; those outside the
// picture are its border pixels.
struct Axis {
    const int *starts, *weights;
    int taps, count, length;
};

__device__ int pixel(Axis axis, int i, int tap) { return min(max(axis.starts[i] + tap, 0), axis.length - 1); }

__device__ int weight(Axis axis, int i, int tap) { return axis.weights[i * axis.taps + tap]; }

// Pillow's sums have 22 fractional bits; a filter with negative weights may leave 0 to 255.
__device__ int to_byte(int sum) { return min(max(sum >> 22, 0), 255); }

// Pillow: the pass along `first` is rounded to a byte, then that along `second`. A stride is the bytes from pixel to
// pixel of an axis, i and j are the places on them.
__device__ void pillow(const uint8 *frame, Axis first, long long first_stride, int i, Axis second,
                       long long second_stride, int j, int *values)
{
    int sums[3] = {1 << 21, 1 << 21, 1 << 21};
    for (int outer = 0; outer < second.taps; outer++) {
        int share = weight(second, j, outer);
        if (share == 0)
            continue;
        const uint8 *line = frame + pixel(second, j, outer) * second_stride;
        int parts[3] = {1 << 21, 1 << 21, 1 << 21};
        for (int inner = 0; inner < first.taps; inner++) {
            const uint8 *colors = line + pixel(first, i, inner) * first_stride;
            for (int channel = 0; channel < 3; channel++)
                parts[channel] += colors[channel] * weight(first, i, inner);
        }
        for (int channel = 0; channel < 3; channel++)
            sums[channel] += to_byte(parts[channel]) * share;
    }
    for (int channel = 0; channel < 3; channel++)
        values[channel] = to_byte(sums[channel]);
}

// cv2's INTER_LINEAR: weights in 1/2048, rounded once, with bits cut off on the way.
__device__ void cv2(const uint8 *frame, long long pitch, Axis columns, Axis rows, int column, int row, int *values)
{
    for (int channel = 0; channel < 3; channel++) {
        int value = 2;
        for (int i = 0; i < 2; i++) {
            const uint8 *line = frame + pixel(rows, row, i) * pitch + channel;
            int sum = 0;
            for (int j = 0; j < 2; j++)
                sum += line[3 * pixel(columns, column, j)] * weight(columns, column, j);
            value += (weight(rows, row, i) * (sum >> 4)) >> 16;
        }
        values[channel] = value >> 2;
    }
}

// The resized picture's part that the tables describe stands at (left, top); the rest is `pad`. `flip` exchanges red and
// blue, `cv2_rounding` says whose arithmetic the tables are for.
extern "C" __global__ void preprocess(const uint8 *frame, long long pitch, const int *column_starts,
                                      const int *column_weights, int column_taps, int columns_shown, int frame_width,
                                      const int *row_starts, const int *row_weights, int row_taps, int rows_shown,
                                      int frame_height, int left, int top, int cv2_rounding, int rows_first, int pad,
                                      float divisor, const float *mean, const float *std, int width, int height,
                                      int flip, int half, void *output)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    Axis columns = {column_starts, column_weights, column_taps, columns_shown, frame_width};
    Axis rows = {row_starts, row_weights, row_taps, rows_shown, frame_height};
    int column = x - left, row = y - top, values[3] = {pad, pad, pad};
    if (column >= 0 && column < columns.count && row >= 0 && row < rows.count) {
        if (cv2_rounding)
            cv2(frame, pitch, columns, rows, column, row, values);
        else if (rows_first)
            pillow(frame, rows, pitch, row, columns, 3, column, values);
        else
            pillow(frame, columns, 3, column, rows, pitch, row, values);
    }
    for (int channel = 0; channel < 3; channel++) {
        int plane = flip ? 2 - channel : channel;
        float value = (values[channel] / divisor - mean[plane]) / std[plane];
        store(output, ((size_t)plane * height + y) * width + x, value, half);
    }
}

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

// ultralytics' LetterBox: cv2.resize(INTER_LINEAR) onto a canvas of `fill`, RGB / 255.
// `columns` and `rows` hold (first, second, weight, weight) for each pixel of the resized picture, weights in 1/2048.
extern "C" __global__ void letterbox(const uint8 *frame, long long pitch, const int *columns, const int *rows,
                                     int resized_width, int resized_height, int left, int top, int width, int height,
                                     int fill, int bgr, int half, void *output)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    int column = x - left, row = y - top;
    bool inside = column >= 0 && column < resized_width && row >= 0 && row < resized_height;
    const int *h = columns + 4 * column, *v = rows + 4 * row;
    for (int channel = 0; channel < 3; channel++) {
        int value = fill;
        if (inside) {
            const uint8 *first = frame + v[0] * pitch + channel, *second = frame + v[1] * pitch + channel;
            int upper = first[3 * h[0]] * h[2] + first[3 * h[1]] * h[3];
            int lower = second[3 * h[0]] * h[2] + second[3 * h[1]] * h[3];
            value = (((v[2] * (upper >> 4)) >> 16) + ((v[3] * (lower >> 4)) >> 16) + 2) >> 2;
        }
        int plane = bgr ? 2 - channel : channel;
        store(output, ((size_t)plane * height + y) * width + x, value / 255.0f, half);
    }
}

// torchvision's Resize (Pillow's BILINEAR, antialiased) + CenterCrop + Normalize, RGB.
// Pixel i of the crop is the sum of `taps` pixels from starts[i] on, with weights in 1/2^22; Pillow rounds to uint8
// after the horizontal pass and again after the vertical one.
extern "C" __global__ void center_crop(const uint8 *frame, long long pitch, const int *column_starts,
                                       const int *column_weights, int column_taps, const int *row_starts,
                                       const int *row_weights, int row_taps, const float *mean, const float *std,
                                       int width, int height, int bgr, int half, void *output)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    const int *h = column_weights + x * column_taps, *v = row_weights + y * row_taps;
    const uint8 *corner = frame + row_starts[y] * pitch + 3 * column_starts[x];
    int sums[3] = {1 << 21, 1 << 21, 1 << 21};
    for (int row = 0; row < row_taps; row++) {
        if (v[row] == 0)
            continue;
        const uint8 *pixel = corner + row * pitch;
        int line[3] = {1 << 21, 1 << 21, 1 << 21};
        for (int column = 0; column < column_taps; column++, pixel += 3)
            for (int channel = 0; channel < 3; channel++)
                line[channel] += pixel[channel] * h[column];
        for (int channel = 0; channel < 3; channel++)
            sums[channel] += (line[channel] >> 22) * v[row];
    }
    for (int channel = 0; channel < 3; channel++) {
        int plane = bgr ? 2 - channel : channel;
        float value = ((sums[channel] >> 22) / 255.0f - mean[plane]) / std[plane];
        store(output, ((size_t)plane * height + y) * width + x, value, half);
    }
}

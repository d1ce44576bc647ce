/* The stand-in CUDA runtime: copies and fills. Where both ends lie and how long they are is checked
 * when they are enqueued; pageable memory is read at once, as the genuine runtime stages it, and
 * has been written when the call returns; pinned memory is touched when the stream comes to it.
 * What cudaMemcpy() has staged is on its way to the device when it returns: streams that the legacy
 * one does not order need not see it. */
#include "tests/emu/standin_private.h"

#include <cstring>

using namespace standin;

namespace
{

/* Rows of width bytes; a plain copy has one. */
struct Copy {
    char *dst;
    const char *src;
    size_t dst_pitch, src_pitch, width, rows;

    size_t dst_span() const
    {
        return (rows - 1) * dst_pitch + width;
    }
    size_t src_span() const
    {
        return (rows - 1) * src_pitch + width;
    }
};

void run(const Copy &c)
{
    for (size_t i = 0; i < c.rows; i++)
        memmove(c.dst + i * c.dst_pitch, c.src + i * c.src_pitch, c.width);
}

bool fits(cudaMemcpyKind kind, Place dst, Place src)
{
    bool to_device = dst == Place::Device, from_device = src == Place::Device;

    if (dst == Place::Invalid || src == Place::Invalid)
        return false;
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    default:
        return true;
    }
}

const char *name_of(Place dst, Place src)
{
    if (src == Place::Device)
        return dst == Place::Device ? "device to device" : "device to host";
    return dst == Place::Device ? "host to device" : "host to host";
}

WorkPtr work_of(const char *kind, const char *name, size_t bytes, std::function<void()> body)
{
    WorkPtr work = std::make_shared<Work>();

    work->kind = kind;
    work->name = name;
    work->bytes = bytes;
    work->attempt = [body] {
        body();
        return 1;
    };
    return work;
}

WorkPtr copy_work(Copy c, Place dst, Place src, bool now)
{
    size_t bytes = c.width * c.rows;

    if (src != Place::Pageable || !now)
        return work_of("copy", name_of(dst, src), bytes, [c] { run(c); });
    auto staged = std::make_shared<std::vector<char>>(bytes);
    Copy in = c;
    in.dst = staged->data();
    in.dst_pitch = c.width;
    run(in);
    c.src = staged->data();
    c.src_pitch = c.width;
    return work_of("copy", name_of(dst, src), bytes, [c, staged] { run(c); });
}

cudaError_t copy(const Copy &c, cudaMemcpyKind kind, cudaStream_t handle, bool wait)
{
    cudaStream_t stream = stream_of(handle);

    if (stream == NULL)
        return cudaErrorInvalidResourceHandle;
    if ((unsigned)kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (c.rows == 0 || c.width == 0)
        return cudaSuccess;
    if (c.dst_pitch < c.width || c.src_pitch < c.width)
        return cudaErrorInvalidValue;
    Place dst = place_of(c.dst, c.dst_span()), src = place_of(c.src, c.src_span());
    if (!fits(kind, dst, src))
        return cudaErrorInvalidValue;
    bool staged = src == Place::Pageable && dst == Place::Device;
    if (wait && staged)
        drain(stream->tail);
    cudaError_t result = enqueue(stream, copy_work(c, dst, src, stream->capture == nullptr));
    if (result != cudaSuccess || stream->capture != nullptr)
        return result;
    if (wait ? !staged && (dst != Place::Device || src != Place::Device) : dst == Place::Pageable)
        drain(stream->tail);
    return cudaSuccess;
}

cudaError_t fill(char *p, size_t pitch, int value, size_t width, size_t rows, cudaStream_t handle)
{
    cudaStream_t stream = stream_of(handle);

    if (stream == NULL)
        return cudaErrorInvalidResourceHandle;
    if (width == 0 || rows == 0)
        return cudaSuccess;
    if (pitch < width || place_of(p, (rows - 1) * pitch + width) != Place::Device)
        return cudaErrorInvalidValue;
    return enqueue(stream, work_of("set", "memset", width * rows, [=] {
                       for (size_t i = 0; i < rows; i++)
                           memset(p + i * pitch, value, width);
                   }));
}

Copy plain(void *dst, const void *src, size_t bytes)
{
    return {(char *)dst, (const char *)src, bytes, bytes, bytes, 1};
}

/* Calls that belong to the legacy stream and may wait. */
template <class Body> cudaError_t blocking_call(Body body)
{
    return call([&] {
        cudaError_t refused = refuse_implicit(stream_of(NULL));

        if (refused == cudaSuccess)
            refused = refuse_unsafe();
        return refused != cudaSuccess ? refused : body();
    });
}

} // namespace

extern "C" {

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return call([&] { return copy(plain(dst, src, bytes), kind, stream, false); });
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    return blocking_call([&] { return copy(plain(dst, src, bytes), kind, NULL, true); });
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    Copy c = {(char *)dst, (const char *)src, dst_pitch, src_pitch, width, height};

    return call([&] { return copy(c, kind, stream, false); });
}

cudaError_t cudaMemcpy2D(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind)
{
    Copy c = {(char *)dst, (const char *)src, dst_pitch, src_pitch, width, height};

    return blocking_call([&] { return copy(c, kind, NULL, true); });
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    return call([&] { return fill((char *)p, bytes, value, bytes, 1, stream); });
}

/* Does not wait, as the genuine one. */
cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    return blocking_call([&] { return fill((char *)p, bytes, value, bytes, 1, NULL); });
}

cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream)
{
    return call([&] { return fill((char *)p, pitch, value, width, height, stream); });
}
}

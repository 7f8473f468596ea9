// Copies past the caches, which a large result would fill.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace thinned {
namespace {

// A copy past the caches: it does not read the memory that it overwrites.
inline void copy_past(void *to, const void *from, int64_t bytes) {
#ifdef __SSE2__
    char *out = (char *)to;
    const char *in = (const char *)from;
    const int64_t head = std::min<int64_t>(-(uintptr_t)out & 15, bytes);
    std::memcpy(out, in, head);
    int64_t i = head;
    for (; i + 16 <= bytes; i += 16) _mm_stream_si128((__m128i *)(out + i), _mm_loadu_si128((const __m128i *)(in + i)));
    std::memcpy(out + i, in + i, bytes - i);
#else
    std::memcpy(to, from, bytes);
#endif
}

}  // namespace
}  // namespace thinned

// Masks and dropout, element by element: one read, one write, and the bits made on the way.

#include "lanes.hpp"

namespace thinned {
namespace THINNED_LEVEL {
namespace {

// out = kept ? x * scale : 0. Selects, so that NaN in a dropped unit is gone.
template <class T, class Int>
inline void select(const T *x, T *out, uint64_t bits, int m, T scale) {
#ifdef THINNED_BYTES
    typedef T Reals __attribute__((vector_size(THINNED_BYTES)));
    typedef Int Ints __attribute__((vector_size(THINNED_BYTES)));
    constexpr int W = THINNED_BYTES / sizeof(T);
    if (m == 64) {
        Ints lane;
        for (int j = 0; j < W; ++j) lane[j] = (Int)1 << j;
        for (int i = 0; i < 64; i += W) {
            Reals y;
            std::memcpy(&y, x + i, sizeof y);
            y *= scale;
            const Ints have = (Ints{} + (Int)((bits >> i) & ((1u << W) - 1))) & lane;
            y = (Reals)((Ints)y & (have == lane));
            std::memcpy(out + i, &y, sizeof y);
        }
        return;
    }
#endif
    for (int i = 0; i < m; ++i) out[i] = (bits >> i & 1) ? x[i] * scale : (T)0;
}

}  // namespace

void mask(uint8_t *out, uint64_t start, int64_t n, Draw draw) {
    for_each_word(start, n, draw, [=](int64_t i, uint64_t bits, int m) {
        if (m == 64) {
            for (int j = 0; j < 64; j += 8) {  // eight bits to eight bytes: bit k to byte k, then to 0 or 1
                const uint64_t spread = ((bits >> j & 255) * 0x0101010101010101u) & 0x8040201008040201u;
                const uint64_t bytes = ((spread + 0x7F7F7F7F7F7F7F7Fu) >> 7) & 0x0101010101010101u;
                for (int k = 0; k < 8; ++k) out[i + j + k] = (uint8_t)(bytes >> (8 * k));
            }
        } else {
            for (int j = 0; j < m; ++j) out[i + j] = bits >> j & 1;
        }
    });
}

void dropout(DType dtype, const void *x, void *out, uint64_t start, int64_t n, Draw draw, double scale) {
    const auto run = [=](auto zero, auto integer) {
        using T = decltype(zero);
        const T *from = static_cast<const T *>(x);
        T *to = static_cast<T *>(out);
        for_each_word(start, n, draw, [=](int64_t i, uint64_t bits, int m) {
            select<T, decltype(integer)>(from + i, to + i, bits, m, (T)scale);
        });
    };
    if (dtype == DType::float32) run(0.0f, int32_t(0));
    if (dtype == DType::float64) run(0.0, int64_t(0));
}

}  // namespace THINNED_LEVEL
}  // namespace thinned

// Masks, and what is dropped by element or by rows of elements: one read, one write, the bits made on the way.

#include "halves.hpp"
#include "select.hpp"

#include <algorithm>
#include <cmath>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

template <class T>
inline void put(T *out, Reals<T> y, bool stream) {
#if defined(__AVX512F__)
    if (stream) return _mm512_stream_si512((__m512i *)out, (__m512i)y);
#elif defined(__AVX2__)
    if (stream) return _mm256_stream_si256((__m256i *)out, (__m256i)y);
#endif
    Vector<T>::store(out, y);
}

// y = kept ? x * scale + shift : fill, for numbers stored as S. `affine` is false where shift = fill = 0.
template <class S, bool affine>
struct Map {
    using T = Wide<S>;
    using V = Vector<T>;
    T scale, shift, fill;
    bool exact;  // the scale is a power of two, and no product is smaller than its x

    explicit Map(const Drop &how) : scale((T)how.scale), shift((T)how.shift), fill((T)how.fill) {
        int power;
        exact = !affine && std::frexp(scale, &power) == 0.5 && power > 0;
    }

    // 64 numbers, kept where their bits are 1.
    void word(const T *x, T *out, uint64_t bits, bool stream) const {
        constexpr int B = 8 * sizeof(T);  // bits that `chosen` looks at
        for (int h = 0; h < 64; h += B)
            for (int j = 0; j < B; j += V::lanes) {
                Reals<T> y = V::load(x + h + j) * scale;
                if constexpr (affine) y += shift;
                y = chosen<T>(y, bits >> h, j);
                if constexpr (affine) {
                    using Ints = typename V::Ints;
                    y = (Reals<T>)((Ints)y | (Ints)chosen<T>(Reals<T>{} + fill, ~bits >> h, j));
                }
                put<T>(out + h + j, y, stream);
            }
    }

    // The same for half precision, computed in single.
    void half_word(const S *x, S *out, uint64_t bits) const {
#ifdef __F16C__
        const __m256 by = _mm256_set1_ps(scale), plus = _mm256_set1_ps(shift);
        S dropped;
        narrow(fill, dropped);
        const __m256i instead = _mm256_set1_epi16((short)dropped.bits);
        for (int j = 0; j < 64; j += 16) {
            const __m256i y = mapped<affine>(x + j, by, plus, exact), kept = sixteen((uint16_t)(bits >> j));
            _mm256_storeu_si256((__m256i *)(out + j), affine ? _mm256_blendv_epi8(instead, y, kept) : _mm256_and_si256(y, kept));
        }
#else
        T wide[64];
        widen(x, wide, 64);
        word(wide, wide, bits, false);
        narrow(wide, out, 64);
#endif
    }

    void word(const S *x, S *out, uint64_t bits, int m, bool stream) const {
        if constexpr (std::is_same_v<S, T>) {
            if (m == 64) return word(x, out, bits, stream);
            T some[64] = {};
            std::copy_n(x, m, some);
            word(some, some, bits, false);
            std::copy_n(some, m, out);
        } else if (m == 64) {  // a number of rounds that the compiler knows
            half_word(x, out, bits);
        } else {
            T wide[64] = {};
            widen(x, wide, m);
            word(wide, wide, bits, false);
            narrow(wide, out, m);
        }
    }

    // n numbers, all kept or all dropped.
    void row(const S *x, S *out, int64_t n, bool kept) const {
        if (!kept) {
            S value;
            if constexpr (std::is_same_v<S, T>)
                value = fill;
            else
                narrow(fill, value);
            std::fill_n(out, n, value);
        } else if constexpr (std::is_same_v<S, T>) {
#if defined(__GNUC__)
#pragma GCC ivdep
#endif
            for (int64_t i = 0; i < n; ++i) out[i] = affine ? x[i] * scale + shift : x[i] * scale;
        } else {
            T wide[64];
            for (int64_t i = 0; i < n; i += 64) {
                const int m = n - i < 64 ? (int)(n - i) : 64;
                widen(x + i, wide, m);
                for (int j = 0; j < m; ++j) wide[j] = affine ? wide[j] * scale + shift : wide[j] * scale;
                narrow(wide, out + i, m);
            }
        }
    }
};

template <class S, bool affine>
void elements(const S *x, S *out, int64_t first, int64_t n, const Drop &how, bool stream) {
    const Map<S, affine> map(how);
    const uint64_t start = how.start + first;
#ifdef THINNED_BYTES
    const auto ahead = reinterpret_cast<uintptr_t>(out + (64 - start % 64) % 64);  // where whole words begin
    stream = stream && std::is_same_v<S, Wide<S>> && ahead % THINNED_BYTES == 0;
#endif
    for_each_word(start, n, how.draw, [=](int64_t i, uint64_t bits, int m) { map.word(x + i, out + i, bits, m, stream); });
#ifdef THINNED_BYTES
    if (stream) _mm_sfence();
#endif
}

template <class S, bool affine>
void rows(const S *x, S *out, int64_t first, int64_t n, const Drop &how) {
    const Map<S, affine> map(how);
    const int64_t inner = how.inner, before = first % inner, row = first / inner;
    for_each_word(how.start + row, (before + n + inner - 1) / inner, how.draw, [=](int64_t i, uint64_t bits, int m) {
        for (int j = 0; j < m; ++j) {
            const int64_t begin = std::max<int64_t>((i + j) * inner - before, 0), end = std::min((i + j + 1) * inner - before, n);
            map.row(x + begin, out + begin, end - begin, bits >> j & 1);
        }
    });
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

void drop(DType dtype, const void *x, void *out, int64_t first, int64_t n, const Drop &how, bool stream) {
    by_type(dtype, [=, &how](auto zero) {
        using S = decltype(zero);
        const S *from = static_cast<const S *>(x);
        S *to = static_cast<S *>(out);
        const bool affine = how.shift != 0 || how.fill != 0;
        if (how.inner == 1)
            affine ? elements<S, true>(from, to, first, n, how, stream) : elements<S, false>(from, to, first, n, how, stream);
        else
            affine ? rows<S, true>(from, to, first, n, how) : rows<S, false>(from, to, first, n, how);
    });
}

}  // namespace THINNED_LEVEL
}  // namespace thinned

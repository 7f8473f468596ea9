// Numbers chosen by packed bits: kept where a bit is 1, zero where it is 0. This selects instead of multiplying:
// a NaN that is not chosen is gone.
#pragma once
#include "lanes.hpp"

#include <type_traits>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

#if defined(THINNED_BYTES)
constexpr int REGISTER = THINNED_BYTES;
#elif defined(__GNUC__)
constexpr int REGISTER = 16;
#endif

// A vector of numbers; one number where the compiler has no vectors.
template <class T>
struct Vector {
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
#if defined(THINNED_BYTES) || defined(__GNUC__)
    typedef T Reals __attribute__((vector_size(REGISTER)));
    typedef Int Ints __attribute__((vector_size(REGISTER)));
#else
    typedef T Reals;
    typedef Int Ints;
#endif
    static constexpr int lanes = sizeof(Reals) / sizeof(T);

    static Reals load(const T *p) {
        Reals v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static void store(T *p, Reals v) { std::memcpy(p, &v, sizeof v); }
    static Ints ramp(Int first, Int step) {
        Int lane[lanes];
        for (int i = 0; i < lanes; ++i) lane[i] = first + i * step;
        Ints v;
        std::memcpy(&v, lane, sizeof v);
        return v;
    }
};

template <class T>
using Reals = typename Vector<T>::Reals;

#if defined(__AVX2__) && !defined(__AVX512F__)
// Bit first + i of `bits` as the sign of lane i; 32 bits count for float, 64 for double.
template <class T>
inline __m256i signs(uint64_t bits, int first) {
    constexpr int top = 8 * sizeof(T) - 1;
    const __m256i by = (__m256i)Vector<T>::ramp(top - first, -1);
    if constexpr (sizeof(T) == 4)
        return _mm256_sllv_epi32(_mm256_set1_epi32((int)bits), by);
    else
        return _mm256_sllv_epi64(_mm256_set1_epi64x((long long)bits), by);
}
#endif

#ifdef __AVX2__
// Bit i of `bits` as lane i of 16: all ones or zero.
inline __m256i sixteen(uint16_t bits) {
    const __m256i lane = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), lane), lane);
}
#endif

// y where bit first + lane of `bits` is 1, else 0.
template <class T>
inline Reals<T> chosen(Reals<T> y, uint64_t bits, int first) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return (Reals<T>)_mm512_maskz_mov_ps((__mmask16)(bits >> first), (__m512)y);
    else
        return (Reals<T>)_mm512_maskz_mov_pd((__mmask8)(bits >> first), (__m512d)y);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
        return (Reals<T>)_mm256_blendv_ps(__m256{}, (__m256)y, (__m256)signs<T>(bits, first));
    else
        return (Reals<T>)_mm256_blendv_pd(__m256d{}, (__m256d)y, (__m256d)signs<T>(bits, first));
#elif defined(THINNED_NEON)
    if constexpr (sizeof(T) == 4) {
        const uint32x4_t lane = vshlq_u32(uint32x4_t{1, 2, 4, 8}, vdupq_n_s32(first));
        return (Reals<T>)((uint32x4_t)y & vtstq_u32(vdupq_n_u32((uint32_t)bits), lane));
    } else {
        const uint64x2_t lane = vshlq_u64(uint64x2_t{1, 2}, vdupq_n_s64(first));
        return (Reals<T>)((uint64x2_t)y & vtstq_u64(vdupq_n_u64(bits), lane));
    }
#elif defined(__GNUC__)
    using Ints = typename Vector<T>::Ints;
    Ints lane;
    for (int i = 0; i < Vector<T>::lanes; ++i) lane[i] = (typename Vector<T>::Int)1 << i;
    const Ints have = (Ints{} + (typename Vector<T>::Int)(bits >> first & 15)) & lane;
    return (Reals<T>)((Ints)y & (have == lane));
#else
    return (bits >> first & 1) ? y : (T)0;
#endif
}

// The same for the numbers at p + first. With `edge`, numbers that are not chosen may lie past the end of the array,
// and are not read.
template <class T, bool edge = false>
inline Reals<T> chosen(const T *p, uint64_t bits, int first) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return (Reals<T>)_mm512_maskz_loadu_ps((__mmask16)(bits >> first), p + first);
    else
        return (Reals<T>)_mm512_maskz_loadu_pd((__mmask8)(bits >> first), p + first);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
        return (Reals<T>)_mm256_maskload_ps(p + first, signs<T>(bits, first));
    else
        return (Reals<T>)_mm256_maskload_pd((const double *)p + first, signs<T>(bits, first));
#else
    if constexpr (!edge) return chosen<T>(Vector<T>::load(p + first), bits, first);
    T lane[Vector<T>::lanes];
    for (int i = 0; i < Vector<T>::lanes; ++i) lane[i] = (bits >> (first + i) & 1) ? p[first + i] : (T)0;
    return Vector<T>::load(lane);
#endif
}

}  // namespace
}  // namespace THINNED_LEVEL
}  // namespace thinned

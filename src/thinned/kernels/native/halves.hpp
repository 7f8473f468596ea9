// Half precision: to single, and back by rounding to nearest, ties to even. NaN stays NaN. The bits are
// the same at every level of the instruction set, and those of the CPU's own conversions.
#pragma once
#include "lanes.hpp"

#include <type_traits>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

struct Half { uint16_t bits; };   // float16
struct Brain { uint16_t bits; };  // bfloat16

template <class S>
using Wide = std::conditional_t<std::is_class_v<S>, float, S>;  // what S is computed in

inline uint32_t bits_of(float a) {
    uint32_t bits;
    std::memcpy(&bits, &a, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float a;
    std::memcpy(&a, &bits, sizeof a);
    return a;
}

inline float widen(Brain a) { return float_of((uint32_t)a.bits << 16); }

inline float widen(Half a) {
    constexpr uint32_t ONE = 1u << 23, HIGHEST = 31u << 23;
    const uint32_t value = (a.bits & 0x7FFFu) << 13, exponent = value & HIGHEST;
    const uint32_t moved = value + 112 * ONE;  // another bias: 127 - 15
    const uint32_t small = bits_of(float_of(moved + ONE) - float_of(113 * ONE));  // 2**-14 (1 + m) - 2**-14
    const uint32_t wide = exponent == 0 ? small : exponent == HIGHEST ? moved + 112 * ONE : moved;
    return float_of(wide | (uint32_t)(a.bits & 0x8000u) << 16);
}

inline void narrow(float a, Brain &out) {
    const uint32_t bits = bits_of(a), rounded = bits + 0x7FFFu + (bits >> 16 & 1);
    out.bits = (uint16_t)(((bits & 0x7FFFFFFFu) > 0x7F800000u ? bits | 0x400000u : rounded) >> 16);
}

inline void narrow(float a, Half &out) {
    constexpr uint32_t ONE = 1u << 23;
    const uint32_t bits = bits_of(a), value = bits & 0x7FFFFFFFu;
    const uint32_t small = bits_of(float_of(value) + float_of(126 * ONE)) - 126 * ONE;  // + 1/2: its last place is 2**-24
    const uint32_t normal = (value - 112 * ONE + 0xFFFu + (value >> 13 & 1)) >> 13;
    const uint32_t nan = 0x7E00u | (value >> 13 & 0x3FFu);
    const uint32_t number = value < 113 * ONE ? small : value < 143 * ONE ? normal : 0x7C00u;
    out.bits = (uint16_t)((value > 0x7F800000u ? nan : number) | (bits >> 16 & 0x8000u));
}

// n contiguous numbers.
template <class S>
inline void widen(const S *x, float *out, int64_t n) {
    int64_t i = 0;
#ifdef __F16C__
    if constexpr (std::is_same_v<S, Half>)
        for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#endif
    for (; i < n; ++i) out[i] = widen(x[i]);
}

template <class S>
inline void narrow(const float *x, S *out, int64_t n) {
    int64_t i = 0;
#ifdef __F16C__
    if constexpr (std::is_same_v<S, Half>)
        for (; i + 8 <= n; i += 8)
            _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; ++i) narrow(x[i], out[i]);
}

template <class Run>
inline void by_type(DType dtype, Run run) {
    if (dtype == DType::float32) run(0.0f);
    if (dtype == DType::float64) run(0.0);
    if (dtype == DType::float16) run(Half{});
    if (dtype == DType::bfloat16) run(Brain{});
}

}  // namespace
}  // namespace THINNED_LEVEL
}  // namespace thinned

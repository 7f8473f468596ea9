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

// The bits of bfloat16, rounded as `narrow` rounds one number, in the low half of each lane.
#if defined(__AVX512F__)
inline __m512i high_half(__m512 a) {
    const __m512i bits = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), quiet), 16);
}
#elif defined(__AVX2__)
inline __m256i high_half(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
#endif

// n contiguous numbers.
template <class S>
inline void widen(const S *x, float *out, int64_t n) {
    int64_t i = 0;
#ifdef __F16C__
    if constexpr (std::is_same_v<S, Half>)
        for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#endif
#ifdef THINNED_NEON
    if constexpr (std::is_same_v<S, Half>)
        for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&x[i].bits))));
#endif
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<S, Brain>)
        for (; i + 16 <= n; i += 16) {
            const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(x + i)));
            _mm512_storeu_si512(out + i, _mm512_slli_epi32(bits, 16));
        }
#elif defined(__AVX2__)
    if constexpr (std::is_same_v<S, Brain>)
        for (; i + 8 <= n; i += 8) {
            const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(x + i)));
            _mm256_storeu_si256((__m256i *)(out + i), _mm256_slli_epi32(bits, 16));
        }
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
#ifdef THINNED_NEON
    if constexpr (std::is_same_v<S, Half>)
        for (; i + 4 <= n; i += 4) vst1_u16(&out[i].bits, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
#endif
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<S, Brain>)
        for (; i + 16 <= n; i += 16) _mm256_storeu_si256((__m256i *)(out + i), _mm512_cvtepi32_epi16(high_half(_mm512_loadu_ps(x + i))));
#elif defined(__AVX2__)
    if constexpr (std::is_same_v<S, Brain>)
        for (; i + 16 <= n; i += 16) {  // packed within halves of a register, so that the quarters are put in order
            const __m256i packed = _mm256_packus_epi32(high_half(_mm256_loadu_ps(x + i)), high_half(_mm256_loadu_ps(x + i + 8)));
            _mm256_storeu_si256((__m256i *)(out + i), _mm256_permute4x64_epi64(packed, 0xD8));
        }
#endif
    for (; i < n; ++i) narrow(x[i], out[i]);
}

#ifdef __F16C__
// x * scale, or x * scale + shift, of 16 numbers. `exact` says that the product needs no rounding.
template <bool affine>
inline __m256i mapped(const Half *x, __m256 scale, __m256 shift, bool) {
    __m128i half[2];
    for (int h = 0; h < 2; ++h) {
        __m256 y = _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + 8 * h))), scale);
        if constexpr (affine) y = _mm256_add_ps(y, shift);
        half[h] = _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT);
    }
    return _mm256_set_m128i(half[1], half[0]);
}

// The bits of single precision, rounded to bfloat16 as `narrow` rounds one number, in the upper half of each lane.
inline __m256i rounded(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i number = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256 quiet = _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x400000)));
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(number), quiet, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}

// Numbers of even and of odd index by themselves: both are the upper half of a lane, the latter where they lie.
template <bool affine>
inline __m256i mapped(const Brain *x, __m256 scale, __m256 shift, bool exact) {
    const __m256i bits = _mm256_loadu_si256((const __m256i *)x);
    __m256 even = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)), scale);
    __m256 odd = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0xFFFF << 16))), scale);
    if constexpr (affine) even = _mm256_add_ps(even, shift), odd = _mm256_add_ps(odd, shift);
    const __m256i low = exact ? _mm256_castps_si256(even) : rounded(even), high = exact ? _mm256_castps_si256(odd) : rounded(odd);
    return _mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0xAA);
}
#endif

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

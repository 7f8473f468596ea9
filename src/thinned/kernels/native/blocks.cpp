// DropBlock: the map of a sample as one string of bits, spread from the seeds in all axes, then one pass over the numbers.
//
// A seed lies where its whole block fits. So, in the string of places (channels, D, H, W), bits that move on by up to
// block - 1 places of an axis never leave their row, their map or their channel: spreading is a few shifts of the
// whole string, by strides of 1, W and H W.

#include "halves.hpp"
#include "select.hpp"

#include <algorithm>
#include <vector>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

using Words = std::vector<uint64_t>;

inline int ones(uint64_t a) {
    a -= (a >> 1) & 0x5555555555555555u;
    a = (a & 0x3333333333333333u) + ((a >> 2) & 0x3333333333333333u);
    return (int)((((a + (a >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u) >> 56);
}

// to = from, or from moved on by so many places.
void moved_or_there(const uint64_t *__restrict from, uint64_t *__restrict to, int64_t n, int64_t places) {
    const int64_t skip = std::min(places / 64, n);
    const int shift = places % 64;
    std::copy(from, from + skip, to);
    if (skip < n) to[skip] = from[skip] | from[0] << shift;
    for (int64_t i = skip + 1; i < n; ++i) to[i] = from[i] | from[i - skip] << shift | from[i - skip - 1] >> 1 >> (63 - shift);
}

// What has fallen in one sample after the other: a bit for each place of its maps.
class Fallen {
public:
    explicit Fallen(const Blocks &b) : b_(b), places_(b.maps), seeds_(b.maps) {
        for (int axis = 0; axis < 3; ++axis) {
            valid_[axis] = b.size[axis] - b.block[axis] + 1;
            places_ *= b.size[axis];
            seeds_ *= valid_[axis];
        }
        drawn_.resize(packed_words(seeds_) + 1);
        bits_.resize(places_ / 64 + 2);
        other_.resize(bits_.size());
    }

    void sample(int64_t n) {
        seed(b_.start + (uint64_t)n * seeds_);
        int64_t stride = 1;
        for (int axis = 2; axis >= 0; --axis) {
            for (int64_t reach = 1, step; reach < b_.block[axis]; reach += step) {
                step = std::min(reach, b_.block[axis] - reach);
                moved_or_there(bits_.data(), other_.data(), (int64_t)bits_.size(), step * stride);
                bits_.swap(other_);
            }
            stride *= b_.size[axis];
        }
    }

    int64_t places() const { return places_; }
    uint64_t word(int64_t i) const { return bits_[i / 64]; }
    int64_t kept() const {
        int64_t fallen = 0;
        for (const uint64_t word : bits_) fallen += ones(word);
        return places_ - fallen;
    }

private:
    // The seeds to their places, row by row.
    void seed(uint64_t start) {
        pack(drawn_.data(), start, seeds_, b_.draw);
        std::fill(bits_.begin(), bits_.end(), 0);
        int64_t from = start % 128;
        for (int64_t map = 0; map < b_.maps; ++map)
            for (int64_t d = 0; d < valid_[0]; ++d)
                for (int64_t h = 0; h < valid_[1]; ++h) {
                    const int64_t to = ((map * b_.size[0] + d) * b_.size[1] + h) * b_.size[2];
                    for (int64_t w = 0; w < valid_[2]; w += 64) put(~word_at(drawn_.data(), from + w), std::min<int64_t>(valid_[2] - w, 64), to + w);
                    from += valid_[2];
                }
    }

    void put(uint64_t bits, int64_t m, int64_t at) {
        bits &= ~0ull >> (64 - m);
        if (!bits) return;
        bits_[at / 64] |= bits << (at % 64);
        bits_[at / 64 + 1] |= bits >> 1 >> (63 - at % 64);
    }

    const Blocks &b_;
    int64_t places_, seeds_, valid_[3];
    Words drawn_, bits_, other_;
};

// 64 numbers: x * scale where the bit is 1, else 0.
template <class T>
inline void scale_chosen(const T *x, T *out, uint64_t bits, T scale) {
    using V = Vector<T>;
    constexpr int B = 8 * sizeof(T);  // bits that `chosen` looks at
    for (int h = 0; h < 64; h += B)
        for (int j = 0; j < B; j += V::lanes) V::store(out + h + j, chosen<T>(V::load(x + h + j) * scale, bits >> h, j));
}

template <class S>
inline void scale_chosen(const S *x, S *out, uint64_t bits, int m, Wide<S> scale) {
    Wide<S> some[64] = {};
    if constexpr (std::is_same_v<S, Wide<S>>) {
        if (m == 64) return scale_chosen(x, out, bits, scale);
        std::copy(x, x + m, some);
        scale_chosen(some, some, bits, scale);
        std::copy(some, some + m, out);
    } else {
        widen(x, some, m);
        scale_chosen(some, some, bits, scale);
        narrow(some, out, m);
    }
}

template <class S>
void samples(const S *x, S *out, const Blocks &b, Range range) {
    Fallen fallen(b);
    const int64_t places = fallen.places(), runs = b.channels / b.maps;  // that share the bits
    for (int64_t n = range.begin; n < range.end; ++n) {
        fallen.sample(n);
        const auto scale = (Wide<S>)((double)places / (double)std::max<int64_t>(fallen.kept(), 1));
        for (int64_t run = n * runs; run < (n + 1) * runs; ++run)
            for (int64_t i = 0; i < places; i += 64)
                scale_chosen(x + run * places + i, out + run * places + i, ~fallen.word(i), (int)std::min<int64_t>(places - i, 64), scale);
    }
}

}  // namespace

void drop_block(DType dtype, const void *x, void *out, const Blocks &b, Range range) {
    by_type(dtype, [=, &b](auto zero) {
        using S = decltype(zero);
        samples(static_cast<const S *>(x), static_cast<S *>(out), b, range);
    });
}

}  // namespace THINNED_LEVEL
}  // namespace thinned

// The elements of an array in their logical, C order, wherever they lie.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace thinned {

class Walk {
public:
    // Sizes and strides count elements; a stride may be 0 or negative. Axes that are contiguous with each other are merged.
    Walk(const std::vector<int64_t> &shape, const std::vector<int64_t> &strides) {
        for (std::size_t i = 0; i < shape.size(); ++i) {
            if (shape[i] == 1) continue;
            if (!axes_.empty() && axes_.back().stride == shape[i] * strides[i])
                axes_.back() = {axes_.back().size * shape[i], strides[i], 0};
            else
                axes_.push_back({shape[i], strides[i], 0});
        }
        if (axes_.empty()) axes_.push_back({1, 1, 0});
    }

    int64_t size() const {
        int64_t n = 1;
        for (const Axis &axis : axes_) n *= axis.size;
        return n;
    }

    void go_to(int64_t element) {
        offset_ = 0;
        for (auto axis = axes_.rbegin(); axis != axes_.rend(); ++axis) {
            axis->at = element % axis->size;
            element /= axis->size;
            offset_ += axis->at * axis->stride;
        }
    }

    // The next n elements of `size` bytes, from `array` to `out`; and from `in` to `array`.
    void gather(const char *array, char *out, int64_t n, int size) {
        move(n, size, [=](auto element, int64_t offset, int64_t stride, int64_t done, int64_t m) {
            using T = decltype(element);
            const T *from = reinterpret_cast<const T *>(array) + offset;
            T *to = reinterpret_cast<T *>(out) + done;
            if (stride == 1)
                std::memcpy(to, from, m * sizeof(T));
            else
                for (int64_t i = 0; i < m; ++i) to[i] = from[i * stride];
        });
    }

    void scatter(const char *in, char *array, int64_t n, int size) {
        move(n, size, [=](auto element, int64_t offset, int64_t stride, int64_t done, int64_t m) {
            using T = decltype(element);
            const T *from = reinterpret_cast<const T *>(in) + done;
            T *to = reinterpret_cast<T *>(array) + offset;
            if (stride == 1)
                std::memcpy(to, from, m * sizeof(T));
            else
                for (int64_t i = 0; i < m; ++i) to[i * stride] = from[i];
        });
    }

private:
    struct Axis {
        int64_t size, stride, at;
    };

    template <class Run>
    void move(int64_t n, int size, Run run) {
        if (size == 2) runs(n, uint16_t(), run);
        if (size == 4) runs(n, uint32_t(), run);
        if (size == 8) runs(n, uint64_t(), run);
    }

    // Calls run(element, offset, stride, done, m) for the next n elements, in runs along the last axis.
    template <class T, class Run>
    void runs(int64_t n, T element, Run run) {
        for (int64_t done = 0; done < n;) {
            Axis &last = axes_.back();
            const int64_t left = last.size - last.at, m = left < n - done ? left : n - done;
            run(element, offset_, last.stride, done, m);
            done += m;
            last.at += m;
            offset_ += m * last.stride;
            for (std::size_t i = axes_.size() - 1; i > 0 && axes_[i].at == axes_[i].size; --i) {  // carry
                offset_ += axes_[i - 1].stride - axes_[i].size * axes_[i].stride;
                axes_[i].at = 0;
                ++axes_[i - 1].at;
            }
        }
    }

    std::vector<Axis> axes_;
    int64_t offset_ = 0;
};

}  // namespace thinned

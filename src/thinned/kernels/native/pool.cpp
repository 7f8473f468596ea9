// The free blocks of pool.hpp, oldest first; the oldest go back to the system above the limit.
#include "pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>

namespace thinned {
namespace {

struct Free {
    void *data;
    std::size_t room;
};

constexpr std::size_t UNIT = 1 << 16, LINE = 64;

std::mutex guard;         // only try_lock on the hot path: after a fork while it was held, the child works without the pool
std::deque<Free> resting;  // oldest first
std::size_t held = 0, limit = std::size_t(256) << 20;

void shrink(std::size_t to) {
    while (held > to) {
        held -= resting.front().room;
        std::free(resting.front().data);
        resting.pop_front();
    }
}

}  // namespace

Block::Block(std::size_t bytes) : data_(nullptr), size_(bytes), room_((std::max<std::size_t>(bytes, 1) + UNIT - 1) / UNIT * UNIT) {
    if (std::unique_lock<std::mutex> lock(guard, std::try_to_lock); lock) {
        const auto same = [this](const Free &block) { return block.room == room_; };
        if (const auto found = std::find_if(resting.rbegin(), resting.rend(), same); found != resting.rend()) {
            data_ = found->data;  // the latest, which is most likely in cache
            held -= room_;
            resting.erase(std::next(found).base());
        }
    }
    if (!data_) data_ = std::aligned_alloc(LINE, room_);
    if (!data_) throw std::bad_alloc();
}

Block::~Block() {
    if (std::unique_lock<std::mutex> lock(guard, std::try_to_lock); lock && room_ <= limit) {
        resting.push_back({data_, room_});
        held += room_;
        shrink(limit);
    } else {
        std::free(data_);
    }
}

void keep_at_most(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(guard);
    limit = bytes;
    shrink(limit);
}

std::size_t waiting() {
    const std::lock_guard<std::mutex> lock(guard);
    return held;
}

}  // namespace thinned

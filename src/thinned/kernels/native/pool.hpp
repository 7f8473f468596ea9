// Memory for results. The memory of a freed large array waits here to be used again: fresh memory costs a page
// fault every 4 KiB, six times the time of writing it.
#pragma once
#include <cstddef>

namespace thinned {

class Block {
public:
    explicit Block(std::size_t bytes);
    ~Block();
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;
    void *data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    void *data_;
    std::size_t size_, room_;
};

void keep_at_most(std::size_t bytes);  // the bound on waiting memory; the oldest above it is freed
std::size_t waiting();                 // bytes that wait now

}  // namespace thinned

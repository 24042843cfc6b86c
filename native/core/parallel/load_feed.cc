// LoadPipeline: a thread that reads a file and pushes what it has read.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/parallel/load_pipeline.h"

namespace chkpt {

Status LoadPipeline::Feed(int fd, std::uint64_t position, std::uint64_t bytes) {
  auto file = std::make_shared<OwnedFd>(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (file->get() < 0) return SystemError(errno, "duplicating the descriptor of an input");
  Feed(
      [file = std::move(file)](std::uint64_t at, std::span<std::uint8_t> target) -> std::size_t {
        ssize_t count = 0;
        do {
          count = ::pread(file->get(), target.data(), target.size(), static_cast<off_t>(at));
        } while (count < 0 && errno == EINTR);
        return count < 0 ? 0 : static_cast<std::size_t>(count);
      },
      position, bytes);
  return Ok();
}

void LoadPipeline::Feed(Reader read, std::uint64_t position, std::uint64_t bytes) {
  feeder_.Start(
      [this, read = std::move(read), position, bytes] { FeedFrom(read, position, bytes); });
}

void LoadPipeline::FeedFrom(const Reader& read, std::uint64_t position, std::uint64_t bytes) {
  for (bool more = true; more;) {
    Fed fed;
    more = FeedOne(read, position, bytes, &fed);
    position += fed.bytes;
    bytes -= fed.bytes;
    fed.pages = scanner_.next_page();
    fed.over = !more;
    Tell(std::move(fed));
  }
}

bool LoadPipeline::FeedOne(const Reader& read, std::uint64_t position, std::uint64_t bytes,
                           Fed* fed) {
  if (bytes == 0) return false;
  const std::optional<std::size_t> buffer = WaitForBuffer();
  if (!buffer) return false;
  const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, read_bytes()));
  const std::size_t count = read(position, {ReadArea(*buffer), wanted});
  // The end, or an error: the caller reads there again, and tells it in its own words.
  if (count == 0) {
    Return(*buffer);
    return false;
  }
  fed->bytes = count;
  Result<Pushed> pushed = Push(*buffer, count);
  if (!pushed.ok()) {
    fed->error = std::move(pushed.error());
    return false;
  }
  fed->digests = std::move(pushed.value().digests);
  fed->ended = pushed.value().ended;
  const std::uint8_t* leftover = pushed.value().leftover;
  if (fed->ended) fed->leftover.assign(leftover, leftover + pushed.value().leftover_bytes);
  return !fed->ended;
}

std::optional<std::size_t> LoadPipeline::WaitForBuffer() {
  std::size_t index = 0;
  {
    std::unique_lock lock(mutex_);
    buffer_freed_.wait(lock, [this] { return !free_.empty() || cancelled_ || error_; });
    if (cancelled_ || error_) return std::nullopt;
    index = free_.back();
    free_.pop_back();
  }
  Result<std::optional<std::size_t>> buffer = Prepare(index);
  return buffer.ok() ? buffer.value() : std::nullopt;
}

void LoadPipeline::Tell(Fed fed) {
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    fed_.digests.insert(fed_.digests.end(), fed.digests.begin(), fed.digests.end());
    fed_.bytes += fed.bytes;
    fed_.pages = fed.pages;
    fed_.over = fed.over;
    fed_.ended = fed.ended;
    fed_.leftover = std::move(fed.leftover);
    fed_.error = std::move(fed.error);
    const bool due = fed.over || std::chrono::steady_clock::now() - told_ >= kTellEvery;
    if (due) news = std::exchange(fed_wanted_, false);
  }
  if (news) notify_();
}

std::optional<LoadPipeline::Fed> LoadPipeline::PollFed() {
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (!fed_.over && (fed_.bytes == 0 || now - told_ < kTellEvery)) {
    fed_wanted_ = true;
    return std::nullopt;
  }
  told_ = now;
  return std::exchange(fed_, {});
}

}  // namespace chkpt

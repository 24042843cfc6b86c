#include "core/scan/page_digests.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/xxh3.h"

namespace chkpt {

Result<std::shared_ptr<PageDigests>> PageDigests::Create(std::uint64_t page_count) {
  Secret secret;
  std::size_t filled = 0;
  while (filled < secret.size()) {
    const ssize_t count = getrandom(secret.data() + filled, secret.size() - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return Error{
          .code = ErrorCode::kIo, .message = "cannot get random bytes", .system_errno = errno};
    }
    filled += static_cast<std::size_t>(count);
  }
  return Map(page_count, secret);
}

Result<std::shared_ptr<PageDigests>> PageDigests::Share() const {
  return Map(page_count_, secret_);
}

Result<std::shared_ptr<PageDigests>> PageDigests::Map(std::uint64_t page_count,
                                                      const Secret& secret) {
  void* const entries = mmap(nullptr, page_count * sizeof(PageDigest), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (entries == MAP_FAILED) {
    return Error{.code = ErrorCode::kNoMemory,
                 .message = "no memory for the digests of all pages",
                 .system_errno = errno};
  }
  return std::shared_ptr<PageDigests>(
      new PageDigests(page_count, static_cast<PageDigest*>(entries), secret));
}

PageDigests::PageDigests(std::uint64_t page_count, PageDigest* entries, const Secret& secret)
    : page_count_(page_count), entries_(entries), secret_(secret) {
  zero_ = Fill(0);
}

PageDigests::~PageDigests() { munmap(entries_, page_count_ * sizeof(PageDigest)); }

PageDigest PageDigests::Digest(const std::uint8_t* page) const {
  const XXH128_hash_t hash =
      XXH3_128bits_withSecret(page, kPageBytes, secret_.data(), kSecretBytes);
  if (hash.low64 == 0 && hash.high64 == 0) return {1, 0};
  return {hash.low64, hash.high64};
}

PageDigest PageDigests::Fill(std::uint64_t word) const {
  alignas(64) std::array<std::uint8_t, kPageBytes> page;
  for (std::size_t i = 0; i < kPageBytes; i += 8) Store<std::uint64_t>(page.data() + i, word);
  return Digest(page.data());
}

void PageDigests::Forget(const DirtyBitmap& pages) {
  std::vector<std::uint64_t> words(pages.word_count());
  pages.Copy(words);
  RunIterator runs(words, std::min(page_count_, pages.page_count()));
  for (PageRun run; runs.Next(&run);) std::fill_n(entries_ + run.first, run.count, PageDigest{});
}

void PageDigests::Differing(const PageDigests& other, DirtyBitmap* pages) const {
  CHKPT_CHECK(other.page_count_ == page_count_ && other.secret_ == secret_);
  const auto of = [this](const PageDigest& entry) { return entry == PageDigest{} ? zero_ : entry; };
  for (std::uint64_t page = 0; page < page_count_; ++page) {
    if (of(entries_[page]) != of(other.entries_[page])) pages->Mark(page);
  }
}

}  // namespace chkpt

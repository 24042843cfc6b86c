#include "core/pool/pack_file.h"

#include <algorithm>

#include "core/base/bytes.h"
#include "core/base/xxh3.h"
#include "core/format/frame.h"
#include "core/memory/guest_memory.h"

namespace chkpt {
namespace {

constexpr std::size_t kUuidCharacters = 36;
constexpr std::string_view kSuffix = ".pack";

bool IsUuidCharacter(std::size_t index, char c) {
  if (index == 8 || index == 13 || index == 18 || index == 23) return c == '-';
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

Error BadPack() { return {.code = ErrorCode::kFormat, .message = "this is no pack of a pool"}; }

}  // namespace

ObjectDigest DigestOf(std::span<const std::uint8_t> object) {
  const XXH128_hash_t hash = XXH3_128bits(object.data(), object.size());
  return {.low = hash.low64, .high = hash.high64};
}

bool IsPackName(std::string_view name) {
  if (name.size() != kUuidCharacters + kSuffix.size() || !name.ends_with(kSuffix)) return false;
  for (std::size_t i = 0; i < kUuidCharacters; ++i) {
    if (!IsUuidCharacter(i, name[i])) return false;
  }
  return true;
}

std::vector<std::uint8_t> EncodePackEnd(std::span<const PackObject> objects) {
  std::vector<std::uint8_t> end(objects.size() * kPackEntryBytes + kPackFooterBytes);
  std::uint8_t* at = end.data();
  std::uint64_t bytes = 0;
  for (const PackObject& object : objects) {
    Store(at, object.digest.low);
    Store(at + 8, object.digest.high);
    Store(at + 16, object.bytes);
    bytes += object.bytes;
    at += kPackEntryBytes;
  }
  std::copy(kPackMagic.begin(), kPackMagic.end(), at);
  Store(at + 8, static_cast<std::uint64_t>(objects.size()));
  Store(at + 16, bytes);
  Store(at + 24, static_cast<std::uint64_t>(XXH3_64bits(end.data(), end.size() - 8)));
  return end;
}

Result<std::vector<PackObject>> ReadPackTable(int fd, std::uint64_t file_bytes,
                                              std::uint64_t count_max) {
  if (file_bytes < kPackFooterBytes) return BadPack();
  std::array<std::uint8_t, kPackFooterBytes> footer{};
  Status status = ReadAll(fd, file_bytes - kPackFooterBytes, footer);
  if (!status.ok()) return std::move(status.error());
  if (!std::equal(kPackMagic.begin(), kPackMagic.end(), footer.begin())) return BadPack();
  const auto count = Load<std::uint64_t>(footer.data() + 8);
  const auto object_bytes = Load<std::uint64_t>(footer.data() + 16);
  const std::uint64_t rest = file_bytes - kPackFooterBytes;
  if (count > count_max || count > rest / kPackEntryBytes ||
      object_bytes != rest - count * kPackEntryBytes) {
    return BadPack();
  }
  std::vector<std::uint8_t> end(static_cast<std::size_t>(file_bytes - object_bytes));
  status = ReadAll(fd, object_bytes, end);
  if (!status.ok()) return std::move(status.error());
  if (XXH3_64bits(end.data(), end.size() - 8) != Load<std::uint64_t>(end.data() + end.size() - 8)) {
    return Error{.code = ErrorCode::kDigest, .message = "the table of a pack is damaged"};
  }
  std::vector<PackObject> objects(static_cast<std::size_t>(count));
  std::uint64_t offset = 0;
  const std::uint8_t* at = end.data();
  for (PackObject& object : objects) {
    object = {.digest = {.low = Load<std::uint64_t>(at), .high = Load<std::uint64_t>(at + 8)},
              .offset = offset,
              .bytes = Load<std::uint32_t>(at + 16)};
    if (object.bytes == 0 || object.bytes > kFramePayloadBytesMax ||
        object.bytes > object_bytes - offset) {
      return BadPack();
    }
    offset += object.bytes;
    at += kPackEntryBytes;
  }
  if (offset != object_bytes) return BadPack();
  return objects;
}

}  // namespace chkpt

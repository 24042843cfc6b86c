#include "core/pool/frame_cutter.h"

#include <algorithm>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/units.h"
#include "core/format/frame.h"
#include "core/pool/pack_file.h"

namespace chkpt {
namespace {

constexpr std::size_t kBlockHeadBytes = 16;  // codec, encoded bytes, classes

// Of the frame that begins here, with its header; nothing when none does.
std::optional<std::size_t> FrameBytes(const std::uint8_t* header) {
  const auto payload = chkpt::Load<std::uint64_t>(header + 8);
  const bool is_frame = chkpt::Load<std::uint32_t>(header) != 0 &&
                        chkpt::Load<std::uint32_t>(header + 4) == 0 &&
                        payload <= kFramePayloadBytesMax;
  if (!is_frame) return std::nullopt;
  return kFrameHeaderBytes + static_cast<std::size_t>(Pad8(payload));
}

void AddOwn(std::span<const std::uint8_t> bytes, std::vector<Cut>* cuts) {
  if (bytes.empty()) return;
  if (!cuts->empty() && !cuts->back().is_object) {
    Cut& last = cuts->back();
    if (last.bytes.data() + last.bytes.size() == bytes.data()) {
      last.bytes = {last.bytes.data(), last.bytes.size() + bytes.size()};
      return;
    }
  }
  cuts->push_back({.bytes = bytes, .is_object = false});
}

// Whole pages that stand uncompressed behind the head of a block.
std::size_t RawPages(std::span<const std::uint8_t> payload) {
  if (payload.size() < kBlockHeadBytes || payload[0] != 0) return 0;
  const auto bytes = chkpt::Load<std::uint32_t>(payload.data() + 4);
  if (bytes % kPageBytes != 0 || bytes > payload.size() - kBlockHeadBytes) return 0;
  return bytes / kPageBytes;
}

void CutFrame(std::span<const std::uint8_t> frame, std::vector<Cut>* cuts) {
  const auto type = static_cast<FrameType>(chkpt::Load<std::uint32_t>(frame.data()));
  const std::span payload = frame.subspan(kFrameHeaderBytes);
  if (!IsBlock(type) || payload.size() < kObjectBytesMin) return AddOwn(frame, cuts);
  const std::size_t pages = RawPages(payload);
  if (pages == 0) {
    AddOwn(frame.first(kFrameHeaderBytes), cuts);
    cuts->push_back({.bytes = payload, .is_object = true});
    return;
  }
  AddOwn(frame.first(kFrameHeaderBytes + kBlockHeadBytes), cuts);
  for (std::size_t i = 0; i < pages; ++i) {
    cuts->push_back({.bytes = payload.subspan(kBlockHeadBytes + i * kPageBytes, kPageBytes),
                     .is_object = true});
  }
  AddOwn(payload.subspan(kBlockHeadBytes + pages * kPageBytes), cuts);
}

}  // namespace

void FrameCutter::Push(std::span<const std::uint8_t> bytes, std::vector<Cut>* cuts) {
  while (!bytes.empty()) {
    if (is_opaque_) return AddOwn(bytes, cuts);
    if (!begun_.empty()) {
      bytes = bytes.subspan(Complete(bytes, cuts));
      continue;
    }
    if (bytes.size() < kFrameHeaderBytes) {
      begun_.assign(bytes.begin(), bytes.end());
      return;
    }
    const std::optional<std::size_t> size = FrameBytes(bytes.data());
    if (!size) {
      is_opaque_ = true;
    } else if (*size > bytes.size()) {
      begun_.reserve(*size);
      begun_.assign(bytes.begin(), bytes.end());
      return;
    } else {
      CutFrame(bytes.first(*size), cuts);
      bytes = bytes.subspan(*size);
    }
  }
}

// Goes on with the frame that has begun; how many of the bytes it took.
std::size_t FrameCutter::Complete(std::span<const std::uint8_t> bytes, std::vector<Cut>* cuts) {
  std::size_t wanted = kFrameHeaderBytes;
  if (begun_.size() >= kFrameHeaderBytes) wanted = *FrameBytes(begun_.data());
  const std::size_t taken = std::min(wanted - begun_.size(), bytes.size());
  begun_.insert(begun_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
  if (begun_.size() < kFrameHeaderBytes) return taken;
  const std::optional<std::size_t> size = FrameBytes(begun_.data());
  if (!size) {
    is_opaque_ = true;
    AddOwn(Keep(), cuts);
  } else if (begun_.size() == *size) {
    CutFrame(Keep(), cuts);
  }
  return taken;
}

void FrameCutter::Finish(std::vector<Cut>* cuts) {
  if (!begun_.empty()) AddOwn(Keep(), cuts);
  is_opaque_ = false;
}

const std::vector<std::uint8_t>& FrameCutter::Keep() {
  whole_.push_back(std::exchange(begun_, {}));
  return whole_.back();
}

}  // namespace chkpt

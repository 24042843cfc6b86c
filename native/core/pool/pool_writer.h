// PoolWriter: memory contexts of one save, cut into what its checkpoint keeps for itself and what
// it shares with others through a pool.
//
//   bytes ─► FrameCutter ─► own bytes ──────────────────────► the context's file
//                       └─► objects ─► in a pack already? ──► a run of the map
//                                  └─► no: appended ────────► the save's pack ─► a run of the map
//
// An object is shared when the bytes in the pack are the same: digests only find candidates. A pack
// is used once a good part of it was asked for (kUsedShare), so that no checkpoint keeps a large
// pack alive for a little of it. Before the first byte of a pack is relied on it has a second name
// in the save's folder: whoever removes it from the pool then removes a name only.
//
// The map of a context: per run 24 bytes, u64 own bytes before it, u64 place in the pack, u32
// number of the pack, u32 bytes. Numbers of packs are places in what TakePacks gives.
//
// Ownership: descriptors stay the caller's.
// Thread safety: one call at a time, from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/owned_fd.h"
#include "core/base/result.h"
#include "core/pool/frame_cutter.h"
#include "core/pool/pool_index.h"

namespace chkpt {

inline constexpr std::size_t kPoolRunBytes = 24;

class PoolWriter {
 public:
  // One part of so many of a pack has to be wanted.
  static constexpr std::uint64_t kUsedShare = 32;

  // A place to write to, from `position` on.
  struct Target {
    int fd = -1;
    std::uint64_t position = 0;
  };
  struct Written {
    std::uint64_t own_bytes = 0;   // to the context's file
    std::uint64_t pack_bytes = 0;  // to the save's pack
    std::vector<std::uint8_t> map;
  };
  struct PackFile {
    std::string name;
    std::uint64_t bytes = 0;
  };

  // `work` is the folder of the save, in the file system of the pool.
  PoolWriter(std::string pool, std::string work) : pool_(std::move(pool)), work_(std::move(work)) {}

  // Reads the tables of the newest packs of the pool. Packs that cannot be read are not used.
  // Errors: those of opening the folder.
  Status Load();
  // New objects go into the file `name` of the save's folder from now on. Error: it cannot be
  // opened.
  Status BeginPack(std::string name);
  // Takes the next bytes of a context. Errors: those of writing, with errno.
  Result<Written> Write(std::span<const std::span<const std::uint8_t>> pieces, Target own,
                        Target pack);
  // The end of a context: what was kept of it.
  Result<Written> EndContext(Target own);
  // Writes table and footer behind the objects; how many bytes.
  Result<std::uint64_t> EndPack(Target pack);
  // Those that runs name, by number; others lose their name in the save's folder. The length of a
  // pack that has not ended is not known yet.
  std::vector<PackFile> TakePacks();
  // Bytes of contexts that were found in packs of other saves.
  std::uint64_t shared_bytes() const { return shared_bytes_; }

 private:
  static constexpr std::uint32_t kNoNumber = ~std::uint32_t{0};

  struct Pack {
    std::string name;
    std::uint64_t file_bytes = 0;
    std::uint64_t object_bytes = 0;
    std::uint64_t wanted_bytes = 0;
    std::uint64_t inode = 0;
    OwnedFd file{};                    // open: used
    bool is_own = false;               // of this save
    bool is_lost = false;              // cannot be used
    std::uint32_t number = kNoNumber;  // in the map
  };
  struct Run {
    std::uint64_t own_bytes = 0;
    std::uint64_t offset = 0;
    std::uint32_t number = 0;
    std::uint32_t bytes = 0;
  };
  // Bytes of a pack that were read to be compared.
  struct Window {
    std::uint32_t pack = kNoNumber;
    std::uint64_t offset = 0;
    std::vector<std::uint8_t> bytes;
  };
  struct Pending;

  void LoadPack(int folder, std::string name);
  void UseWanted(std::span<const Cut> cuts, std::span<const ObjectDigest> digests);
  void Use(Pack& pack);
  bool IsUsable(const Pack& pack) const { return pack.file.get() >= 0 && !pack.is_lost; }
  bool Holds(const PoolIndex::Place& place, std::span<const std::uint8_t> object,
             const Pending& pending);
  const std::uint8_t* Read(const PoolIndex::Place& place);
  void AddRun(std::uint32_t pack, std::uint64_t offset, std::uint32_t bytes, Written* written);
  void CloseRun(Written* written);
  Result<Written> Place(std::span<const Cut> cuts, Target own, Target pack);

  const std::string pool_;
  const std::string work_;
  FrameCutter cutter_;
  PoolIndex index_;
  std::deque<Pack> packs_;
  std::uint32_t numbers_ = 0;
  std::optional<std::uint32_t> own_pack_;  // in packs_
  std::vector<PackObject> table_;          // of it
  Window window_;
  // The run that may still grow, and own bytes behind it.
  std::optional<Run> run_;
  std::uint64_t own_bytes_ = 0;
  std::uint64_t shared_bytes_ = 0;
};

}  // namespace chkpt

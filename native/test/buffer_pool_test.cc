// Whose bytes a buffer has: nobody may see or write those of another.
#include "core/memory/buffer_pool.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <thread>

#include "core/parallel/encoded_chunk.h"
#include "core/parallel/load_pipeline.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kPoolMiB = std::uint64_t{1} << 20;

std::shared_ptr<Buffer> Take(BufferPool& pool, std::uint64_t bytes, bool huge_pages = false) {
  auto buffer = pool.Take(bytes, huge_pages);
  EXPECT_TRUE(buffer.ok());
  return buffer.value();
}

TEST(BufferPool, ANewBufferIsZerosAndOneThatComesBackSaysThatItIsNot) {
  BufferPool pool;
  auto buffer = Take(pool, 3 * kPoolMiB + 1);
  EXPECT_EQ(buffer->bytes(), 3 * kPoolMiB + kPageBytes);
  EXPECT_FALSE(buffer->used_before());
  for (std::uint64_t i = 0; i < buffer->bytes(); ++i) ASSERT_EQ(buffer->data()[i], 0);
  const std::uint8_t* data = buffer->data();
  buffer->data()[5] = 1;
  pool.GiveBack(std::move(buffer));
  auto again = Take(pool, 3 * kPoolMiB + 1);
  EXPECT_EQ(again->data(), data);
  EXPECT_TRUE(again->used_before());
  EXPECT_EQ(pool.idle_bytes(), 0u);
}

// Reads of files and sockets into whole pages run at full speed.
TEST(BufferPool, EveryBufferIsAlignedToAPageNewAndUsedAgain) {
  constexpr std::uint64_t kReadBufferBytes =
      LoadPipeline::kHeadroomBytes + LoadPipeline::kReadBytes;
  const std::uint64_t sizes[] = {1, kPageBytes, kPageBytes + 1, kSlabBytes, kReadBufferBytes};
  BufferPool pool;
  for (const bool huge_pages : {false, true}) {
    for (const std::uint64_t bytes : sizes) {
      std::vector<std::shared_ptr<Buffer>> held;  // so that the kernel has to find new places
      for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 3; ++i) {
          held.push_back(Take(pool, bytes, huge_pages));
          const auto address = reinterpret_cast<std::uintptr_t>(held.back()->data());
          EXPECT_EQ(address % kPageBytes, 0u) << bytes << (huge_pages ? " huge" : " small");
        }
        pool.GiveBack(std::move(held.front()));
        held.erase(held.begin());
      }
    }
  }
}

TEST(BufferPool, ABufferInUseIsNotGivenToAnother) {
  BufferPool pool;
  auto one = Take(pool, kPoolMiB);
  auto two = Take(pool, kPoolMiB);
  EXPECT_NE(one->data(), two->data());
}

TEST(BufferPool, WhatIsFreedWhileAViewOfItRemainsKeepsNoPages) {
  BufferPool pool;
  auto buffer = Take(pool, kPoolMiB);
  std::memset(buffer->data(), 7, buffer->bytes());
  const auto view = buffer;
  pool.GiveBack(std::move(buffer));
  EXPECT_EQ(view->data()[0], 7);
  auto other = Take(pool, 2 * kPoolMiB);  // what lies idle makes room for it
  EXPECT_EQ(pool.idle_bytes(), 0u);
  std::vector<unsigned char> resident(view->bytes() / kPageBytes);
  ASSERT_EQ(mincore(view->data(), view->bytes(), resident.data()), 0);
  for (const unsigned char page : resident) ASSERT_EQ(page & 1, 0);
  for (std::uint64_t i = 0; i < view->bytes(); ++i) ASSERT_EQ(view->data()[i], 0);
}

TEST(BufferPool, OneThatSomebodyElseMayStillUseIsFreedWithItsLastHolder) {
  BufferPool pool;
  auto buffer = Take(pool, kPoolMiB);
  std::weak_ptr<Buffer> watched = buffer;
  auto view = buffer;
  buffer->Spoil();
  pool.GiveBack(std::move(buffer));
  EXPECT_EQ(pool.idle_bytes(), 0u);
  EXPECT_FALSE(watched.expired());
  view->data()[0] = 1;  // still mapped
  view.reset();
  EXPECT_TRUE(watched.expired());
}

TEST(BufferPool, KeepsNoMoreThanItsBoundAndTheNewest) {
  BufferPool pool;
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (int i = 0; i < 9; ++i) buffers.push_back(Take(pool, 4 * kPoolMiB));
  const std::uint8_t* newest = buffers.back()->data();
  for (auto& buffer : buffers) pool.GiveBack(std::move(buffer));
  EXPECT_EQ(pool.idle_bytes(), BufferPool::kIdleBytesMax);
  EXPECT_EQ(Take(pool, 4 * kPoolMiB)->data(), newest);
  // One that is larger than the bound alone.
  pool.GiveBack(Take(pool, BufferPool::kIdleBytesMax + kPoolMiB));
  EXPECT_LE(pool.idle_bytes(), BufferPool::kIdleBytesMax);
}

TEST(BufferPool, ANewSizeTakesTheMemoryOfWhatLiesIdle) {
  BufferPool pool;
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (int i = 0; i < 4; ++i) buffers.push_back(Take(pool, 2 * kPoolMiB));
  for (auto& buffer : buffers) pool.GiveBack(std::move(buffer));
  auto other = Take(pool, 5 * kPoolMiB);
  EXPECT_EQ(pool.idle_bytes(), 2 * kPoolMiB);
}

TEST(BufferPool, NothingLiesIdleBesideAsManyBytesInUse) {
  BufferPool pool;
  auto first = Take(pool, 2 * kPoolMiB);
  auto second = Take(pool, 3 * kPoolMiB);
  pool.GiveBack(std::move(first));
  pool.GiveBack(std::move(second));
  auto large = Take(pool, BufferPool::kIdleBytesMax - 4 * kPoolMiB);
  EXPECT_EQ(pool.idle_bytes(), 0u);
  auto small = Take(pool, kPoolMiB);
  auto other = Take(pool, 3 * kPoolMiB);
  pool.GiveBack(std::move(other));
  EXPECT_EQ(pool.idle_bytes(), 3 * kPoolMiB);
  auto more = Take(pool, kPoolMiB);
  EXPECT_EQ(pool.idle_bytes(), 0u);
  large.reset();  // not given back, and not counted any more
  pool.GiveBack(std::move(small));
  pool.GiveBack(std::move(more));
  EXPECT_EQ(pool.idle_bytes(), 2 * kPoolMiB);
}

TEST(BufferPool, HugePagesServeBothAndSmallOnesOnlyThoseWhoDoNotCare) {
  BufferPool pool;
  auto small = Take(pool, 2 * kPoolMiB);
  pool.GiveBack(std::move(small));
  auto huge = Take(pool, 2 * kPoolMiB, true);
  EXPECT_TRUE(huge->huge_pages());
  EXPECT_FALSE(huge->used_before());
  const std::uint8_t* huge_data = huge->data();
  pool.GiveBack(std::move(huge));
  EXPECT_EQ(Take(pool, 2 * kPoolMiB)->data(), huge_data);
}

TEST(BufferPool, ManyThreadsNeverHaveTheSameBuffer) {
  BufferPool pool;
  std::vector<std::thread> threads;
  for (std::uint8_t thread = 1; thread <= 4; ++thread) {
    threads.emplace_back([&pool, thread] {
      for (int i = 0; i < 300; ++i) {
        auto buffer = Take(pool, 64 << 10);
        std::memset(buffer->data(), thread, buffer->bytes());
        std::this_thread::yield();
        for (std::uint64_t k = 0; k < buffer->bytes(); k += 512) {
          ASSERT_EQ(buffer->data()[k], thread);
        }
        pool.GiveBack(std::move(buffer));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace chkpt

// Machines under a real /dev/kvm, with a few instructions of 16 bits as their guests. What is
// missing here is in test/adapters: whole saves and loads.
#include "core/kvm/kvm_machine.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <iostream>
#include <thread>

#include "core/kvm/kvm_log_tracker.h"
#include "core/kvm/kvm_ring_tracker.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {
namespace {

constexpr std::uint64_t kMemoryBytes = 1 << 20;
constexpr std::uint64_t kCode = 0x1000;
constexpr std::uint64_t kCounter = 0x2000;

using Code = std::vector<std::uint8_t>;

// next: incw 0x2000; jmp next
const Code kCount = {0xff, 0x06, 0x00, 0x20, 0xeb, 0xfa};
// next: mov dx, 0x500; in al, dx; incw 0x2000; jmp next
const Code kAsk = {0xba, 0x00, 0x05, 0xec, 0xff, 0x06, 0x00, 0x20, 0xeb, 0xf6};

class KvmMachineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto system = KvmSystem::Open();
    if (!system.ok()) GTEST_SKIP() << system.error().message;
    system_ = system.value();
  }

  // A machine whose cores start with `code`.
  std::shared_ptr<KvmMachine> Make(const Code& code, unsigned cores = 1,
                                   std::uint32_t ring_entries = 0) {
    const RegionSpec region = {.base = 0, .bytes = kMemoryBytes};
    auto memory = GuestMemory::Allocate({&region, 1}, {});
    EXPECT_TRUE(memory.ok());
    memory_ = memory.value();
    std::memcpy(host() + kCode, code.data(), code.size());
    auto cpuid = system_->SupportedCpuid();
    EXPECT_TRUE(cpuid.ok());
    KvmOptions options;
    options.cpuid.assign(cores, cpuid.value());
    options.ranges = {{.mmio = false, .base = 0x500, .bytes = 4}};
    options.ring_entries = ring_entries;
    options.notify = [this] { ++news_; };
    auto machine = KvmMachine::Create(system_, memory_, std::move(options));
    EXPECT_TRUE(machine.ok()) << machine.error().message;
    for (unsigned core = 0; core < cores; ++core) Start(*machine.value(), core);
    return machine.value();
  }

  static void Start(KvmMachine& machine, unsigned core) {
    kvm_sregs sregs = Get<kvm_sregs>(machine, core, VcpuPart::kSregs);
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    Set(machine, core, VcpuPart::kSregs, sregs);
    kvm_regs regs = {};
    regs.rip = kCode;
    regs.rflags = 2;
    Set(machine, core, VcpuPart::kRegs, regs);
    const kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
    Set(machine, core, VcpuPart::kMpState, runnable);
  }

  template <typename State>
  static State Get(const KvmMachine& machine, unsigned core, VcpuPart part) {
    State state = {};
    auto bytes = machine.GetVcpu(core, part);
    EXPECT_TRUE(bytes.ok());
    EXPECT_EQ(bytes.value().size(), sizeof state);
    std::memcpy(&state, bytes.value().data(), sizeof state);
    return state;
  }

  template <typename State>
  static void Set(KvmMachine& machine, unsigned core, VcpuPart part, const State& state) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&state);
    EXPECT_TRUE(machine.SetVcpu(core, part, {bytes, sizeof state}).ok());
  }

  std::uint8_t* host() const { return memory_->regions()[0].host; }
  // The guest writes it meanwhile.
  std::uint16_t counter() const {
    return *reinterpret_cast<const volatile std::uint16_t*>(host() + kCounter);
  }

  // False when it took more than ten seconds.
  template <typename Condition>
  static bool Until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  std::shared_ptr<const KvmSystem> system_;
  std::shared_ptr<GuestMemory> memory_;
  std::atomic<int> news_ = 0;
};

TEST_F(KvmMachineTest, RunsOnlyBetweenResumeAndPause) {
  auto machine = Make(kCount, 2);
  EXPECT_EQ(counter(), 0);
  for (int round = 0; round < 50; ++round) {
    const std::uint16_t before = counter();
    machine->Resume();
    ASSERT_TRUE(Until([&] { return counter() != before; }));
    machine->Pause();
    const std::uint16_t paused = counter();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(counter(), paused);
  }
}

bool NotCancelled() { return false; }

std::vector<PageRun> HarvestRuns(DirtyTracker& tracker) {
  DirtyBitmap set(tracker.memory()->page_count());
  EXPECT_TRUE(tracker.Harvest(&set, NotCancelled).ok());
  std::vector<PageRun> runs(256);
  runs.resize(set.Runs(0, runs));
  return runs;
}

// With the entries of the ring; 0: the dirty log.
class KvmTrackerTest : public KvmMachineTest, public ::testing::WithParamInterface<std::uint32_t> {
 protected:
  std::unique_ptr<DirtyTracker> Open(const std::shared_ptr<KvmMachine>& machine) {
    const bool rings = GetParam() > 0;
    auto open = rings ? KvmRingTracker::Open : KvmLogTracker::Open;
    auto tracker = open(machine);
    EXPECT_TRUE(tracker.ok()) << tracker.error().message;
    EXPECT_FALSE(open(machine).ok()) << "one for one machine";
    EXPECT_FALSE((rings ? KvmLogTracker::Open : KvmRingTracker::Open)(machine).ok());
    EXPECT_TRUE(tracker.value()->Arm(NotCancelled).ok());
    return std::move(tracker.value());
  }
};

TEST_P(KvmTrackerTest, TellsWhatTheGuestAndTheMemoryItselfWrite) {
  auto machine = Make(kCount, 1, GetParam());
  auto tracker = Open(machine);
  EXPECT_EQ(HarvestRuns(*tracker), std::vector<PageRun>{});
  for (int round = 0; round < 20; ++round) {
    const std::uint16_t before = counter();
    machine->Resume();
    ASSERT_TRUE(Until([&] { return counter() != before; }));
    machine->Pause();
    EXPECT_EQ(HarvestRuns(*tracker), (std::vector<PageRun>{{kCounter / kPageBytes, 1}}));
    EXPECT_EQ(HarvestRuns(*tracker), std::vector<PageRun>{});
  }
  const std::uint8_t byte = 1;
  ASSERT_TRUE(memory_->Write(0x9000, {&byte, 1}).ok());
  EXPECT_EQ(HarvestRuns(*tracker), (std::vector<PageRun>{{9, 1}}));
}

const std::vector<PageRun> kAllPages = {{0, kMemoryBytes / kPageBytes}};

TEST_P(KvmTrackerTest, LooksWhileTheGuestRunsAndAnotherOneCanBeOpenedLater) {
  auto machine = Make(kCount, 2, GetParam());
  for (int generation = 0; generation < 3; ++generation) {
    auto tracker = Open(machine);
    machine->Resume();
    for (int round = 0; round < 50; ++round) {
      const std::uint16_t before = counter();
      ASSERT_TRUE(Until([&] { return counter() != before; }));
      const std::vector<PageRun> runs = HarvestRuns(*tracker);
      // A KVM in software can write past the end of a ring, when others keep the processors busy.
      if (GetParam() > 0 && runs == kAllPages) GTEST_SKIP() << "the dirty ring was overrun";
      EXPECT_EQ(runs, (std::vector<PageRun>{{kCounter / kPageBytes, 1}}));
    }
    machine->Pause();
  }
}

INSTANTIATE_TEST_SUITE_P(Kvm, KvmTrackerTest, ::testing::Values(0, 65536),
                         [](const auto& test) { return test.param == 0 ? "Log" : "Ring"; });

// di = di * 25173 + 13849; the word at di gets di.
// next: imul di, di, 25173; add di, 13849; mov [di], di; jmp next
const Code kScatter = {0x69, 0xff, 0x55, 0x62, 0x81, 0xc7, 0x19, 0x36, 0x89, 0x3d, 0xeb, 0xf4};

// Microseconds of all threads of this process.
std::int64_t ThreadTimes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) { return time.tv_sec * 1'000'000LL + time.tv_usec; };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

// Gives the core 64 KiB of data away from its code.
void MoveData(KvmMachine& machine) {
  auto bytes = machine.GetVcpu(0, VcpuPart::kSregs);
  ASSERT_TRUE(bytes.ok());
  kvm_sregs sregs;
  std::memcpy(&sregs, bytes.value().data(), sizeof sregs);
  sregs.ds.base = 0x10000;
  sregs.ds.selector = 0x1000;
  std::memcpy(bytes.value().data(), &sregs, sizeof sregs);
  ASSERT_TRUE(machine.SetVcpu(0, VcpuPart::kSregs, bytes.value()).ok());
}

class KvmShadowTest : public KvmTrackerTest {};

// Also with a ring that the guest fills faster than anybody looks: the vCPU makes room itself. A
// KVM in software that writes past its end is noticed: then all pages are told, and a vCPU that KVM
// holds back ends.
TEST_P(KvmShadowTest, NoPageIsLost) {
  auto machine = Make(kScatter, 1, GetParam());
  MoveData(*machine);
  auto tracker = Open(machine);
  std::vector<std::uint8_t> shadow(host(), host() + kMemoryBytes);
  std::size_t told = 0;
  for (int round = 0; round < 20; ++round) {
    machine->Resume();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    machine->Pause();
    if (const std::optional<VcpuEnd> end = machine->TakeEnd()) {
      std::cout << "core 0 ended: " << end->reason << '\n';
      EXPECT_GT(GetParam(), 0u);
    }
    const std::vector<PageRun> runs = HarvestRuns(*tracker);
    told += runs.size();
    for (const PageRun& run : runs) {
      std::memcpy(shadow.data() + run.first * kPageBytes, host() + run.first * kPageBytes,
                  run.count * kPageBytes);
    }
    ASSERT_EQ(std::memcmp(shadow.data(), host(), kMemoryBytes), 0) << "round " << round;
  }
  EXPECT_GT(told, 0u);
}

INSTANTIATE_TEST_SUITE_P(Kvm, KvmShadowTest, ::testing::Values(0, 1024, 65536));

// What else the processors have to do makes the guest slower still, never faster.
TEST_F(KvmMachineTest, AThrottledGuestRunsForItsShareOnly) {
  auto machine = Make(kCount);
  machine->Throttle(0.9);
  machine->Resume();
  const std::uint16_t started = counter();
  const std::int64_t before = ThreadTimes();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  EXPECT_LT(ThreadTimes() - before, 200'000) << "a tenth, and what turns cost";
  ASSERT_TRUE(Until([&] { return counter() != started; }));
  machine->Pause();
  const std::uint16_t paused = counter();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(counter(), paused);
  machine->Throttle(0);
  machine->Resume();
  ASSERT_TRUE(Until([&] { return counter() != paused; }));
  machine->Throttle(0.99);
  machine->Stop();  // also while it rests
}

TEST_F(KvmMachineTest, PauseAndResumeFromManyThreadsEndWhereTheLastOneSays) {
  auto machine = Make(kCount);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&machine, thread] {
      for (int i = 0; i < 200; ++i) (i + thread) % 2 == 0 ? machine->Resume() : machine->Pause();
    });
  }
  for (std::thread& thread : threads) thread.join();
  machine->Pause();
  const std::uint16_t paused = counter();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(counter(), paused);
  machine->Resume();
  EXPECT_TRUE(Until([&] { return counter() != paused; }));
}

TEST_F(KvmMachineTest, StateIsRefusedWhileItRunsAndForAnotherSize) {
  auto machine = Make(kCount);
  machine->Resume();
  EXPECT_FALSE(machine->GetVcpu(0, VcpuPart::kRegs).ok());
  EXPECT_FALSE(machine->GetVm(VmPart::kPit).ok());
  machine->Pause();
  auto regs = machine->GetVcpu(0, VcpuPart::kRegs);
  ASSERT_TRUE(regs.ok());
  regs.value().pop_back();
  EXPECT_EQ(machine->SetVcpu(0, VcpuPart::kRegs, regs.value()).error().code, ErrorCode::kFormat);
  EXPECT_EQ(machine->SetMsrs(0, regs.value()).error().code, ErrorCode::kFormat);
}

TEST_F(KvmMachineTest, EveryPartOfTheStateCanBeReadAndGivenBack) {
  auto machine = Make(kCount, 2);
  machine->Resume();
  ASSERT_TRUE(Until([&] { return counter() != 0; }));
  machine->Pause();
  for (unsigned core = 0; core < 2; ++core) {
    for (std::uint64_t i = 0; i < kVcpuPartCount; ++i) {
      const auto part = static_cast<VcpuPart>(i);
      if (BytesOf(*system_, part) == 0) continue;
      auto state = machine->GetVcpu(core, part);
      ASSERT_TRUE(state.ok()) << i;
      EXPECT_TRUE(machine->SetVcpu(core, part, state.value()).ok()) << i;
    }
    auto msrs = machine->GetMsrs(core);
    ASSERT_TRUE(msrs.ok());
    EXPECT_GT(msrs.value().size(), 10 * 8u);
    EXPECT_TRUE(machine->SetMsrs(core, msrs.value()).ok());
  }
  for (std::uint64_t i = 0; i < kVmPartCount; ++i) {
    auto state = machine->GetVm(static_cast<VmPart>(i));
    ASSERT_TRUE(state.ok()) << i;
    EXPECT_TRUE(machine->SetVm(static_cast<VmPart>(i), state.value()).ok()) << i;
  }
}

TEST_F(KvmMachineTest, AnAccessWaitsForItsAnswerAndPauseForIt) {
  auto machine = Make(kAsk);
  machine->Resume();
  ASSERT_TRUE(Until([&] { return news_ > 0; }));
  const std::optional<DeviceAccess> access = machine->TakeAccess();
  ASSERT_TRUE(access);
  EXPECT_EQ(access->offset, 0u);
  EXPECT_EQ(access->bytes, 1);
  EXPECT_FALSE(access->write);
  EXPECT_FALSE(machine->TakeAccess());
  std::atomic<bool> paused = false;
  std::thread pausing([&] {
    machine->Pause();
    paused = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(paused);
  EXPECT_EQ(counter(), 0);
  machine->Answer(0, 0x5a);
  pausing.join();
  EXPECT_EQ(Get<kvm_regs>(*machine, 0, VcpuPart::kRegs).rax & 0xff, 0x5au);
  machine->Answer(0, 1);  // nobody waits: nothing happens
}

TEST_F(KvmMachineTest, StopLetsGoOfAnAccessThatNobodyAnswers) {
  auto machine = Make(kAsk, 2);
  machine->Resume();
  ASSERT_TRUE(Until([&] { return news_ > 0; }));
  std::thread other([&] { machine->Stop(); });
  machine->Stop();
  other.join();
  machine->Resume();  // nothing any more
  const std::uint16_t stopped = counter();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(counter(), stopped);
}

TEST_F(KvmMachineTest, ACoreThatCannotGoOnIsToldOnceForEachResume) {
  auto machine = Make({0x0f, 0x0b});  // undefined instruction, and no vector for it
  kvm_sregs sregs = Get<kvm_sregs>(*machine, 0, VcpuPart::kSregs);
  sregs.cr0 |= 1;
  sregs.idt.limit = 0;
  sregs.cs = {};
  sregs.cs.limit = 0xffffffff;
  sregs.cs.selector = 8;
  sregs.cs.type = 11;
  sregs.cs.present = sregs.cs.db = sregs.cs.s = sregs.cs.g = 1;
  for (int round = 1; round <= 2; ++round) {
    Set(*machine, 0, VcpuPart::kSregs, sregs);
    machine->Resume();
    ASSERT_TRUE(Until([&] { return news_ >= round; })) << round;
    const std::optional<VcpuEnd> end = machine->TakeEnd();
    ASSERT_TRUE(end);
    EXPECT_FALSE(end->reason.empty());
    EXPECT_FALSE(machine->TakeEnd());
    machine->Pause();
    Start(*machine, 0);
  }
}

TEST_F(KvmMachineTest, AProcessorThatKvmRefusesIsAnError) {
  const RegionSpec region = {.base = 0, .bytes = kMemoryBytes};
  KvmOptions options;
  // More entries than KVM takes (KVM_MAX_CPUID_ENTRIES).
  options.cpuid.assign(2, std::vector<kvm_cpuid_entry2>(300));
  options.notify = [] {};
  auto machine = KvmMachine::Create(system_, GuestMemory::Allocate({&region, 1}, {}).value(),
                                    std::move(options));
  EXPECT_FALSE(machine.ok());
}

TEST(KvmSystem, WhatIsNoKvmIsNamed) {
  for (const char* path : {"/dev/null", "/dev/chkpt-nothing"}) {
    auto system = KvmSystem::Open(path);
    ASSERT_FALSE(system.ok());
    EXPECT_EQ(system.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(system.error().message.find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

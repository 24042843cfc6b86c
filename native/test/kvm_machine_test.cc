// Machines under a real /dev/kvm, with a few instructions of 16 bits as their guests. What is
// missing here is in test/adapters: whole saves and loads.
#include "core/kvm/kvm_machine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/kvm/kvm_log_tracker.h"

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
  std::shared_ptr<KvmMachine> Make(const Code& code, unsigned cores = 1) {
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

TEST_F(KvmMachineTest, TheDirtyLogTellsWhatTheGuestAndTheMemoryItselfWrite) {
  const auto never = [] { return false; };
  auto machine = Make(kCount);
  auto tracker = KvmLogTracker::Open(machine);
  ASSERT_TRUE(tracker.ok()) << tracker.error().message;
  EXPECT_FALSE(KvmLogTracker::Open(machine).ok()) << "one for one machine";
  const auto harvest = [&] {
    DirtyBitmap set(memory_->page_count());
    EXPECT_TRUE(tracker.value()->Harvest(&set, never).ok());
    std::vector<PageRun> runs(16);
    runs.resize(set.Runs(0, runs));
    return runs;
  };
  ASSERT_TRUE(tracker.value()->Arm(never).ok());
  EXPECT_EQ(harvest(), std::vector<PageRun>{});
  for (int round = 0; round < 20; ++round) {
    const std::uint16_t before = counter();
    machine->Resume();
    ASSERT_TRUE(Until([&] { return counter() != before; }));
    machine->Pause();
    EXPECT_EQ(harvest(), (std::vector<PageRun>{{kCounter / kPageBytes, 1}}));
    EXPECT_EQ(harvest(), std::vector<PageRun>{});
  }
  const std::uint8_t byte = 1;
  ASSERT_TRUE(memory_->Write(0x9000, {&byte, 1}).ok());
  EXPECT_EQ(harvest(), (std::vector<PageRun>{{9, 1}}));
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

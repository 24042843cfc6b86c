// Packs of a pool for JavaScript: who writes them, and contexts that are read out of them.
//
//   new PoolWriter(pool, work)     load(): Promise<void>, once · beginPack(name)
//                                  write(pieces, ownFd, ownPosition, packFd, packPosition):
//                                    Promise<{own, pack, map}>; no piece may be transferred before
//                                  endContext(ownFd, ownPosition): Promise<{own, pack, map}>
//                                  endPack(packFd, packPosition): Promise<number>
//                                  takePacks(): {name, bytes}[] · sharedBytes(): number
//                                  close(): gives descriptors back, once no call is under way
//   new PooledSource({bytes, own: {descriptor, bytes}, packs: [{descriptor, bytes}], map})
//                                  read(offset, bytes): Promise<Uint8Array>
//                                  close(): whoever reads from it now keeps the descriptors
//
// Calls of a PoolWriter come one at a time. Descriptors are duplicated before a thread uses them.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "core/lazy/block_source.h"
#include "core/pool/pool_writer.h"

namespace chkpt::binding {

class PoolWriterWrap : public Napi::ObjectWrap<PoolWriterWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit PoolWriterWrap(const Napi::CallbackInfo& info);

 private:
  struct Work;

  Napi::Value Load(const Napi::CallbackInfo& info);
  Napi::Value BeginPack(const Napi::CallbackInfo& info);
  Napi::Value Write(const Napi::CallbackInfo& info);
  Napi::Value EndContext(const Napi::CallbackInfo& info);
  Napi::Value EndPack(const Napi::CallbackInfo& info);
  Napi::Value TakePacks(const Napi::CallbackInfo& info);
  Napi::Value SharedBytes(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  // Null, with an exception pending, when there is no writer or it is busy.
  std::shared_ptr<Work> Begin(const Napi::CallbackInfo& info);

  std::shared_ptr<Work> work_;
};

class PooledSourceWrap : public Napi::ObjectWrap<PooledSourceWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit PooledSourceWrap(const Napi::CallbackInfo& info);

  // Null when `value` is none; no exception.
  static std::shared_ptr<ExtentSource> SourceOf(const Napi::Value& value);

 private:
  Napi::Value Read(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  std::shared_ptr<ExtentSource> source_;
};

}  // namespace chkpt::binding

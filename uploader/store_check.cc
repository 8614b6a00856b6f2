#include "uploader/store_check.h"

#include <cstdlib>

#include "base/bytes.h"
#include "uploader/replica.h"
#include "uploader/state.h"

namespace replica {
namespace {

// S3 refuses requests that are signed more than 15 minutes off; warn well before.
constexpr int64_t kMostSkew = 60000000;  // µs

std::string Seconds(int64_t micros) {
  return std::to_string(micros / 1000000) + " s";
}

class Checker {
 public:
  Checker(Store* store, const Clock& clock) : store_(store), clock_(clock), key_("check-" + Hex16(RandomNumber())) {}

  std::vector<CheckStep> Run() {
    CheckClock();
    const bool listed = CheckList();
    if (!listed || !CheckPut()) {
      const char* why = listed ? "nothing could be written" : "the store could not be read";
      for (const char* name : {"put", "get", "conditional-put", "delete"})
        if (!Has(name)) Add(CheckStep::kSkipped, name, why);
      return std::move(steps_);
    }
    CheckGet();
    CheckConditionalPut();
    CheckDelete();
    return std::move(steps_);
  }

 private:
  bool Add(CheckStep::Outcome outcome, const std::string& name, const std::string& detail) {
    steps_.push_back({outcome, name, detail});
    return outcome == CheckStep::kPassed;
  }
  bool Has(const std::string& name) const {
    for (const CheckStep& step : steps_)
      if (step.name == name) return true;
    return false;
  }

  void CheckClock() {
    auto time = store_->ServerTime();
    if (!time.ok()) {
      Add(CheckStep::kSkipped, "clock", time.status().message());
      return;
    }
    const int64_t off = clock_.WallMicros() - *time;
    const std::string how = Seconds(std::llabs(off)) + (off < 0 ? " behind the store's" : " ahead of the store's");
    if (std::llabs(off) > kMostSkew) {
      Add(CheckStep::kFailed, "clock", "this machine's clock is " + how + ": synchronise it (the limit is 15 minutes)");
    } else {
      Add(CheckStep::kPassed, "clock", "within " + Seconds(std::llabs(off) + 999999) + " of the store's");
    }
  }

  bool CheckList() {
    auto generations = ListGenerations(store_);
    if (!generations.ok()) return Add(CheckStep::kFailed, "list", generations.status().message());
    return Add(CheckStep::kPassed, "list",
               generations->empty() ? "no history here yet"
                                    : std::to_string(generations->size()) + " generation(s) of history here");
  }

  bool CheckPut() {
    Status status = store_->Put(key_, ObjectBody::FromBytes("libreplica check\n"), false);
    return Add(status.ok() ? CheckStep::kPassed : CheckStep::kFailed, "put",
               status.ok() ? ObjectUrl(*store_, key_) : status.message());
  }

  void CheckGet() {
    auto bytes = store_->Get(key_, 0, 1024);
    if (!bytes.ok()) {
      Add(CheckStep::kFailed, "get", bytes.status().message());
    } else {
      const bool same = *bytes == "libreplica check\n";
      Add(same ? CheckStep::kPassed : CheckStep::kFailed, "get",
          same ? "reads back as written" : ObjectUrl(*store_, key_) + " does not read back as it was written");
    }
  }

  void CheckConditionalPut() {
    Status status = store_->Put(key_, ObjectBody::FromBytes("libreplica second writer\n"), true);
    if (status.code() == Code::kExists) {
      Add(CheckStep::kPassed, "conditional-put",
          "an object that exists is not overwritten: two writers are kept apart");
    } else if (status.ok()) {
      Add(CheckStep::kFailed, "conditional-put",
          "the store ignores If-None-Match and overwrote an object: two writers could destroy each other's log. Use "
          "another store, or accept that with fencing: false");
    } else {
      Add(CheckStep::kFailed, "conditional-put", status.message());
    }
  }

  void CheckDelete() {
    Status status = store_->Delete({key_});
    // Replication itself does not delete: without the right it works, and a check leaves its object behind.
    Add(status.ok() ? CheckStep::kPassed : CheckStep::kSkipped, "delete",
        status.ok() ? "the object is removed again" : status.message() + " (not needed for replication)");
  }

  Store* const store_;
  const Clock& clock_;
  const std::string key_;
  std::vector<CheckStep> steps_;
};

}  // namespace

std::vector<CheckStep> CheckStore(Store* store, const Clock& clock) {
  return Checker(store, clock).Run();
}

}  // namespace replica

// Sending: one log segment at a time, snapshots beside it; what the store's answers mean.
#include <algorithm>
#include <random>
#include <utility>

#include "base/fs.h"
#include "base/worker.h"
#include "uploader/engine.h"
#include "uploader/engine_mailbox.h"

namespace replica {
namespace {

constexpr int64_t kFirstBackoff = 100000;      // µs
constexpr int64_t kLongestBackoff = 30000000;  // µs
constexpr int64_t kEndpointBackoff = 1000000;  // µs, at most, after a failure of the endpoint, which has its own delay
constexpr int64_t kOthersFirst = 100000;       // µs
constexpr int64_t kBriefly = 1000000;          // µs that an endpoint may be down before its other databases say so
constexpr int64_t kLookInterval = 900000000;   // µs, at least, between looks whether the replica is still there
constexpr int64_t kLookAgain = 60000000;       // µs, the same after one that had no answer
constexpr int64_t kPersonBackoff = 5000000;    // µs, at least, for an error that only a person can mend

// The store got something else than what was encoded. It was damaged on the way there, which passes; or it is damaged
// here, which does not.
bool DamagedHere(const Status& put, const EncodedSegment& e) {
  if (put.code() != Code::kCorrupt) return false;
  auto bytes = ReadFile(e.path, e.size + 1);
  return bytes.ok() && ObjectBody::FromBytes(std::move(*bytes)).sha256 != e.sha256;
}

}  // namespace

void Engine::Send() {
  if (state_.unread) return;
  const int64_t now = clock_.SteadyMicros();
  if (!queue_.empty() && !log_in_flight_ && now >= retry_at_ && MaySend()) {
    const EncodedSegment& e = queue_.front().encoded;
    log_in_flight_ = true;
    log_put_at_ = now;
    log_failures_ = store_->endpoint()->failures();
    next_turn_ = now + options_.sync_interval;
    control_->puts.fetch_add(1);
    store_->PutAsync(LogKey(state_.generation, e.segment.header.sequence),
                     ObjectBody::FromFile(e.path, e.size, e.sha256), options_.fencing,
                     [mailbox = mailbox_, attach = attach_](Status status) {
                       mailbox->Put(attach, Mailbox::Mail::kLog, std::move(status));
                     });
  }
  if (SnapshotReady() && now >= snapshot_retry_at_ && MaySend()) {
    snapshot_in_flight_ = true;
    snapshot_put_at_ = now;
    snapshot_failures_ = store_->endpoint()->failures();
    control_->puts.fetch_add(1);
    store_->PutAsync(SnapshotKey(state_.generation, snapshot_->segment.trailer.max_txid),
                     ObjectBody::FromFile(snapshot_->path, snapshot_->size, snapshot_->sha256), options_.fencing,
                     [mailbox = mailbox_, attach = attach_](Status status) {
                       mailbox->Put(attach, Mailbox::Mail::kSnapshot, std::move(status));
                     });
  }
}

// A snapshot goes only behind the log segment that it includes: a PUT of that segment that succeeded is the proof that
// the history is still ours. Otherwise a state that a power loss had put back would store snapshots of a history that
// never was, inside the true one.
bool Engine::SnapshotReady() const {
  return snapshot_ && !snapshot_in_flight_ && state_.acknowledged_sequence >= snapshot_->segment.header.sequence;
}

void Engine::TakeMail() {
  for (Mailbox::Mail& mail : mailbox_->Take()) {
    if (mail.attach != attach_) continue;  // of what was given up since
    switch (mail.kind) {
      case Mailbox::Mail::kLog:
        LogDone(mail.status);
        break;
      case Mailbox::Mail::kSnapshot:
        SnapshotDone(mail.status);
        break;
      case Mailbox::Mail::kLook:
        LookDone(mail.status);
        break;
    }
  }
}

void Engine::LogDone(const Status& result) {
  log_in_flight_ = false;
  if (queue_.empty()) return;
  Status status = result;
  if (status.code() == Code::kExists) {
    auto rival = LookAtRival();
    status = rival.status();
    if (status.ok() && *rival == Rival::kOwnPast) {
      // This folder wrote it and forgot (a power loss took spool and state): the replica is ahead of us.
      events_.Add("resync",
                  ObjectUrl(*store_, LogKey(state_.generation, queue_.front().encoded.segment.header.sequence)) +
                      " was written by this database before; reading the replica");
      state_.behind = true;
      (void)Save({});
      attached_ = false;
      control_->active.store(0);
      return;
    }
    if (status.ok() && *rival == Rival::kOther) {
      auto claim = ReadClaim();
      Fence("another writer" + (claim.ok() && claim->any ? " (" + claim->text + ")" : "") +
            " with this database's history");
      return;
    }
  }
  if (!status.ok()) {
    control_->put_errors.fetch_add(1);
    if (!FileExists(queue_.front().encoded.path)) {
      DropSpool("a spooled segment is gone: " + status.message());
      return;
    }
    if (DamagedHere(result, queue_.front().encoded)) {
      DropSpool("a spooled segment is damaged: " + status.message());
      return;
    }
    if (status.code() == Code::kTooLarge && TooLarge(&status)) return;
    SetError(status);
    Backoff(status, store_->endpoint()->failures() != log_failures_, &attempts_, &retry_at_);
    return;
  }
  too_large_ = 0;
  const EncodedSegment& e = queue_.front().encoded;
  control_->put_time.Observe(clock_.SteadyMicros() - log_put_at_);
  control_->acknowledge_time.Observe(clock_.WallMicros() - queue_.front().first_commit);
  if (Replaced()) return;  // stays in the spool, and is acknowledged by whoever leads next
  state_.acknowledged_txid = e.segment.trailer.max_txid;
  state_.acknowledged_sequence = e.segment.header.sequence;
  if (std::exchange(state_.claim_due, false))
    store_->PutAsync(kClaimKey, ObjectBody::FromBytes(ClaimText()), false, [](const Status&) {});
  state_.log_bytes += e.size;
  control_->bytes_stored.fetch_add(e.size);
  control_->spool_bytes.fetch_sub(e.size);
  (void)Save({});  // a lost note costs one PUT that finds the same object
  (void)RemoveFile(e.path);
  queue_.pop_front();
  attempts_ = 0;
  retry_at_ = 0;
  // A first snapshot that is refused stays an error: what was stored just now is not restorable without it.
  if (state_.snapshot_txid != 0 || clock_.SteadyMicros() >= snapshot_not_before_) ClearError();
  Acknowledge();
}

// The segment in front is larger than the store takes. What it and the ones behind it lead to may be smaller: they are
// given up, and the difference to the present state takes their number. True when that was done; the error gets the
// size.
bool Engine::TooLarge(Status* status) {
  const EncodedSegment& e = queue_.front().encoded;
  *status = Status(status->code(), status->message() + " (" + std::to_string(e.size) + " bytes, TXIDs " +
                                       std::to_string(e.segment.header.min_txid) + " to " +
                                       std::to_string(e.segment.trailer.max_txid) + ")");
  constexpr int kBelieve = 2;
  const bool difference = (e.segment.header.flags & kSegmentResync) != 0;
  // A difference that is too large as well becomes another one only when something was committed since.
  if (++too_large_ < kBelieve || (difference && queue_.size() == 1 && source_->Backlog() == 0)) return false;
  too_large_ = 0;
  SetError(*status);
  DropSpool(status->message());
  return true;
}

// The same segment: the answer to an earlier try was lost. Otherwise the history's newest object tells, not the one
// that is in the way: an old image of this folder meets objects that it wrote itself, although another writer has taken
// over behind them.
Result<Engine::Rival> Engine::LookAtRival() {
  const EncodedSegment& e = queue_.front().encoded;
  const std::string key = LogKey(state_.generation, e.segment.header.sequence);
  REPLICA_ASSIGN(uint64_t size, store_->Size(key));
  REPLICA_ASSIGN(Segment stored, ReadSegmentEnds(store_.get(), key, size));
  if (size == e.size && stored.trailer.sha256 == e.segment.trailer.sha256) return Rival::kSame;
  REPLICA_ASSIGN(const ReplicaHead head, ReadHead(store_.get(), state_.generation));
  return !head.end && head.any && head.last.header.writer == state_.writer ? Rival::kOwnPast : Rival::kOther;
}

bool Engine::Replaced() {
  if (replaced_) return true;
  if (source_->FolderGone()) {
    // Whoever makes another folder leads there; its state, spool and events are not ours.
    replaced_ = true;
    StoreText(&control_->last_error, place_.folder + " was removed while it was in use");
    return true;
  }
  if (!source_->Replaced()) return false;
  replaced_ = true;
  control_->active.store(0);
  events_.Add("replaced",
              "another file is at " + place_.database + ", or none: nothing more of the old one is captured");
  return true;
}

// An object is there already, under the name of this snapshot. True when it is of the same state.
Result<bool> Engine::SameSnapshotStored() {
  const std::string key = SnapshotKey(state_.generation, snapshot_->segment.trailer.max_txid);
  REPLICA_ASSIGN(const uint64_t size, store_->Size(key));
  auto ends = ReadSegmentEnds(store_.get(), key, size);
  if (!ends.ok() && ends.status().code() != Code::kCorrupt) return ends.status();
  if (!ends.ok()) return false;
  const Segment& mine = snapshot_->segment;
  if (!ends->snapshot() || ends->header.database != mine.header.database ||
      ends->header.generation != mine.header.generation || ends->header.sequence != mine.header.sequence ||
      ends->trailer.max_txid != mine.trailer.max_txid || ends->trailer.checksum_after != mine.trailer.checksum_after ||
      ends->trailer.pages_after != mine.trailer.pages_after)
    return false;
  snapshot_->size = size;
  return true;
}

void Engine::SnapshotDone(const Status& result) {
  snapshot_in_flight_ = false;
  if (!snapshot_) return;
  Status status = result;
  if (status.code() == Code::kExists) {
    auto same = SameSnapshotStored();
    status = same.status();
    if (status.ok() && !*same) {
      snapshot_taken_txid_ = snapshot_->segment.trailer.max_txid;
      SetError(Status(Code::kConflict,
                      ObjectUrl(*store_, SnapshotKey(state_.generation, snapshot_taken_txid_)) +
                          " is damaged or of another state, and a snapshot never replaces an object. The snapshot of a "
                          "later TXID takes its place; remove the object if verify names it"));
      (void)RemoveFile(snapshot_->path);
      snapshot_.reset();
      return;
    }
  }
  // The first snapshot is what makes a generation restorable. Whoever took over meanwhile has ended it, and begun
  // another.
  if (status.ok() && state_.snapshot_txid == 0 && options_.fencing) {
    std::optional<SegmentHeader> end;
    status = ListLog(store_.get(), state_.generation, state_.acknowledged_sequence, &end).status();
    if (status.ok() && end) {
      (void)RemoveFile(snapshot_->path);
      snapshot_.reset();
      auto claim = ReadClaim();
      Fence("another writer" + (claim.ok() && claim->any ? " (" + claim->text + ")" : ""));
      return;
    }
  }
  if (!status.ok()) {
    control_->put_errors.fetch_add(1);
    if (status.code() == Code::kTooLarge) {
      SetError(
          Status(status.code(), status.message() + " (a snapshot of " + std::to_string(snapshot_->size) + " bytes)"));
      (void)RemoveFile(snapshot_->path);
      snapshot_.reset();
      snapshot_not_before_ = clock_.SteadyMicros() + (state_.snapshot_txid == 0 ? kFirstSnapshotPause : kSnapshotPause);
      return;
    }
    if (!FileExists(snapshot_->path) || DamagedHere(result, *snapshot_)) snapshot_.reset();  // a new one is made
    SetError(status);
    Backoff(status, store_->endpoint()->failures() != snapshot_failures_, &snapshot_attempts_, &snapshot_retry_at_);
    return;
  }
  if (Replaced()) return;
  control_->put_time.Observe(clock_.SteadyMicros() - snapshot_put_at_);
  control_->snapshot_time.Observe(clock_.SteadyMicros() - snapshot_begun_);
  state_.snapshot_txid = snapshot_->segment.trailer.max_txid;
  state_.snapshot_bytes = snapshot_->size;
  state_.snapshot_time = clock_.WallMicros();
  state_.log_bytes -= std::min(state_.log_bytes, snapshot_log_bytes_);
  control_->bytes_stored.fetch_add(snapshot_->size);
  (void)RemoveFile(snapshot_->path);
  snapshot_.reset();
  (void)Save({});
  snapshot_attempts_ = 0;
  control_->snapshot_done.store(snapshot_ticket_);
  ClearError();
  Acknowledge();
}

// Whether the replica is still there: a store that was emptied, replaced or not mounted takes segments as if nothing
// had happened. On a thread of its own, since the answer may take its time.
void Engine::Look() {
  looking_ = true;
  looked_txid_ = state_.snapshot_txid;
  auto thread =
      StartThread("replica-look", [store = store_, mailbox = mailbox_, attach = attach_, generation = state_.generation,
                                   snapshot = state_.snapshot_txid, sequence = state_.acknowledged_sequence] {
        Status status;
        try {
          status = CheckStored(store.get(), generation, snapshot, sequence);
        } catch (const std::exception& e) {
          status = Status(Code::kUnavailable, e.what());
        }
        mailbox->Put(attach, Mailbox::Mail::kLook, std::move(status));
      });
  if (thread.ok()) {
    thread->detach();
  } else {
    LookDone(thread.status());
  }
}

void Engine::LookDone(const Status& status) {
  looking_ = false;
  PlanLook(kLookInterval);
  if (status.ok()) {
    control_->looked_at.store(clock_.WallMicros());
    look_failures_ = 0;
    // What a look has told, nothing else's.
    if (std::exchange(look_failed_, false) && error_.ok()) ClearError();
  } else if (status.code() == Code::kNotFound && looked_txid_ != state_.snapshot_txid) {
    PlanLook(kLookAgain);  // a newer one was stored meanwhile
  } else if (status.code() == Code::kNotFound) {
    events_.Add("replica", "it is not what was stored: " + status.message() +
                               ". A snapshot is made, so that what follows is restorable; what is missing is lost");
    state_.snapshot_txid = 0;
    (void)Save({});
    control_->acknowledged_txid.store(0);
    // In a store that holds nothing of this database the place is not taken yet.
    store_->PutAsync(kClaimKey, ObjectBody::FromBytes(ClaimText()), true, [](const Status&) {});
    SetState();
  } else {
    // No error of the uploading: what PUTs answer decides about that. One look may fail, the next one as well is told.
    if (++look_failures_ > 1) events_.Error(status.In("looking at the replica"));
    if (error_.ok()) {
      look_failed_ = true;
      StoreText(&control_->last_error, status.message());
      if (control_->error_since.load() == 0) control_->error_since.store(clock_.WallMicros());
    }
    PlanLook(kLookAgain);
  }
}

void Engine::PlanLook(int64_t micros) {
  // Not all databases at the same moment.
  std::mt19937_64 random(RandomNumber());
  look_at_ = clock_.SteadyMicros() + micros + std::uniform_int_distribution<int64_t>(0, micros)(random);
}

// Publishes what is restorable now. Without a snapshot nothing is, however much of the log is there.
void Engine::Acknowledge() {
  // What is there now is another database: no answer may be about this one.
  if (state_.snapshot_txid != 0 && !Replaced()) {
    control_->acknowledged_txid.store(std::max(state_.acknowledged_txid, state_.snapshot_txid));
    control_->acknowledged_time.store(clock_.WallMicros());
    control_->sequence.store(state_.acknowledged_sequence);
    if (queue_.empty() && !log_in_flight_ && !needs_resync_)
      control_->sync_done.store(captured_ticket_, std::memory_order_release);
  }
  PublishPosition();
  SetState();
  NotifyWaiters(control_);
}

void Engine::PublishPosition() {
  control_->captured_checksum.store(state_.checksum);
  control_->captured_txid.store(state_.txid, std::memory_order_release);
  control_->unacknowledged_since.store(queue_.empty() ? 0 : queue_.front().first_commit);
  uint64_t words[2];
  std::memcpy(words, state_.generation.data(), 16);
  control_->generation[0].store(words[0]);
  control_->generation[1].store(words[1]);
  std::memcpy(words, state_.database.data(), 16);
  control_->database[0].store(words[0]);
  control_->database[1].store(words[1]);
}

bool Engine::MaySend() {
  Endpoint* const endpoint = store_->endpoint().get();
  if (endpoint->TryBegin()) return true;
  // Perhaps the probe is of another database: this one waits as well.
  const int64_t since = endpoint->down_since();
  if (error_.ok() && since != 0 && clock_.SteadyMicros() - since >= kBriefly)
    SetError(Status(Code::kUnavailable, endpoint->error()));
  return false;
}

void Engine::Backoff(const Status& status, bool of_endpoint, int* attempts, int64_t* retry_at) {
  std::mt19937_64 random(RandomNumber());
  const int shift = std::min(*attempts, 9);
  ++*attempts;
  int64_t most = std::min(kFirstBackoff << shift, kLongestBackoff);
  if (of_endpoint) most = std::min(most, kEndpointBackoff);
  if (NeedsPerson(status)) most = std::max<int64_t>(most, kPersonBackoff);
  // Full jitter, so that many databases do not come back at the same moment.
  std::uniform_int_distribution<int64_t> wait(most / 10, most);
  *retry_at = clock_.SteadyMicros() + wait(random);
  // Who has just failed leaves the next probe to the others: perhaps the endpoint fails for this database only.
  if (of_endpoint) *retry_at = std::max(*retry_at, store_->endpoint()->next_try() + kOthersFirst);
}

}  // namespace replica

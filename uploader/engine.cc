#include "uploader/engine.h"

#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/call_off.h"
#include "base/fs.h"
#include "base/futex.h"
#include "uploader/engine_mailbox.h"

namespace replica {
namespace {

constexpr int64_t kLongestYield = 2000000;   // µs that a PUT under way may hold up a handover
constexpr int64_t kFollowInterval = 100000;  // µs
constexpr uint32_t kWakeFrames = 256;        // frames a gathering leader lets commits write before they wake it

}  // namespace

Engine::Engine(Source* source, std::shared_ptr<Store> store, ControlBlock* control, std::shared_ptr<void> keep_alive,
               Place place, EngineOptions options, const Clock& clock)
    : source_(source),
      store_(std::move(store)),
      control_(control),
      place_(std::move(place)),
      options_(options),
      clock_(clock),
      events_(place_.folder, clock),
      state_file_(place_.folder),
      mailbox_(std::make_shared<Mailbox>()),
      waiter_(store_->endpoint(), [control] { WakeLeader(control); }) {
  mailbox_->control = control;
  mailbox_->keep_alive = std::move(keep_alive);
}

Engine::~Engine() = default;

void Engine::Stop(int64_t flush_micros) {
  stop_ticket_.store(control_->sync_wanted.fetch_add(1, std::memory_order_seq_cst) + 1);
  stop_at_.store(clock_.SteadyMicros() + std::max<int64_t>(flush_micros, 1));
  control_->leader_stopping.store(1, std::memory_order_seq_cst);
  WakeLeader(control_);
}

bool Engine::Run() {
  const CallOff call_off([this] { return Stopping() && clock_.SteadyMicros() >= stop_at_.load(); });
  bool yielded = false;
  control_->leader_dedicated.store(place_.yields ? 0 : 1);
  control_->leader_stopping.store(0);
  if (Stopping()) control_->leader_stopping.store(1);
  control_->leader_pid.store(::getpid());
  handover_seen_ = place_.handover;
  StoreText(&control_->url, store_->url());
  control_->state.store(static_cast<uint32_t>(ReplicaState::kSnapshot));
  control_->wake_at.store(kWakeNever);
  inherited_error_ = control_->error_since.load() != 0;
  events_.AddLater("leader", "process " + std::to_string(::getpid()) + " uploads to " + store_->url());
  for (;;) {
    TakeMail();
    if (Stopping() && (Drained() || clock_.SteadyMicros() >= stop_at_.load())) break;
    // Who is stopping flushes by itself: the one that asks may be about to end as well.
    if (!Stopping() && YieldsNow()) {
      yielded = true;
      events_.AddLater("handover",
                       "process " + std::to_string(::getpid()) + " leaves uploading to a dedicated process");
      break;
    }
    // The next leader, perhaps of this very process, attaches what is there now.
    if (Replaced()) break;
    if (attached_) {
      Status status = Stream();
      if (!status.ok()) {
        // Nothing is captured for a while, so nothing may be held.
        if (status.code() != Code::kUnavailable) source_->LetGo();
        SetError(status);
        Backoff(status, false, &capture_attempts_, &attempt_at_);
      } else if (clock_.SteadyMicros() >= attempt_at_) {
        capture_attempts_ = 0;
      }
    } else if (clock_.SteadyMicros() >= AttachAt()) {
      const uint64_t failures = store_->endpoint()->failures();
      Status status = Attach();
      if (status.ok()) {
        // An error that an earlier leader has left ends here only if nothing waits for the store, which was perhaps not
        // asked.
        if (!fenced_ && (!error_.ok() || (queue_.empty() && state_.snapshot_txid != 0))) ClearError();
        attach_attempts_ = 0;
        attach_waits_ = false;
      } else {
        SetError(status);
        attach_waits_ = store_->endpoint()->down();
        Backoff(status, attach_waits_ || store_->endpoint()->failures() != failures, &attach_attempts_, &attempt_at_);
      }
    }
    SetState();
    events_.Tick();
    Sleep();
  }
  // Whatever the store does, the commits are in the spool before the WAL goes.
  if (attached_ && !fenced_ && !needs_resync_ && !Replaced()) {
    Status status = Capture(nullptr);
    if (!status.ok()) SetError(status);
  }
  events_.End();
  control_->leader_pid.store(0);
  control_->state.store(static_cast<uint32_t>(fenced_ ? ReplicaState::kFenced : ReplicaState::kOff));
  NotifyWaiters(control_);
  return yielded;
}

void Engine::StampCleanClose(const WalPosition& end, const FileStamp& stamp) {
  if (!attached_ || fenced_ || replaced_ || needs_resync_ || control_->overflow.load() != 0 ||
      control_->journal_total.load() != 0)
    return;
  const WalPosition& at = state_.wal;
  if (at.chain != end.chain || at.ordinal != end.ordinal || at.frame != end.frame) return;
  state_.stamp = stamp;
  (void)Save({});
}

SegmentHeader Engine::Header() const {
  SegmentHeader header;
  header.page_size = state_.page_size;
  header.database = state_.database;
  header.generation = state_.generation;
  header.writer = state_.writer;
  return header;
}

std::string Engine::SpoolPath(uint64_t sequence) const {
  return place_.folder + "/spool/log-" + Hex16(sequence);
}

Status Engine::Save(const std::vector<uint32_t>& changed) {
  return state_file_.Save(&state_, table_, changed);
}

// --- streaming

Status Engine::Stream() {
  if (fenced_) return Ok();
  const int64_t now = clock_.SteadyMicros();
  // Also while capture rests: Sleep counts on it.
  if (state_.snapshot_txid != 0 && !looking_ && now >= look_at_ && !Stopping() && store_->endpoint()->TryBegin())
    Look();
  if (control_->overflow.exchange(0) != 0)
    LoseTrack("the spool's bound was reached, or the disk was full, when the WAL restarted");
  if (now < attempt_at_) {  // after a local error: give the disk a moment, but go on sending
    Send();
    return Ok();
  }
  CheckBound();
  source_->Observe();
  if (needs_resync_) {
    REPLICA_TRY(Resync());
  } else {
    REPLICA_TRY(ViewWork());
    if (needs_resync_) return Ok();
    const bool urgent = control_->sync_wanted.load() != captured_ticket_ || capture_due_ || Stopping();
    const uint64_t backlog = source_->Backlog();
    const bool idle = queue_.empty() && !log_in_flight_;
    const bool full = backlog >= options_.encode.fold_above;
    if ((backlog != 0 || urgent) && (idle ? urgent || full || now >= next_turn_ : full && Delayed()))
      REPLICA_TRY(Capture(nullptr));
    else
      REPLICA_TRY(source_->Relieve());
  }
  Send();
  return Ok();
}

Status Engine::ViewWork() {
  if (clock_.SteadyMicros() < view_retry_at_) return Ok();
  Status status = state_.unread ? Ok() : SnapshotStep();
  if (status.ok() && !needs_resync_) status = Mark();
  if (status.code() != Code::kUnavailable) {
    if (status.ok()) view_attempts_ = 0;
    // None of its steps can be made twice: half of one may be in the file.
    if (!status.ok()) builder_.reset();
    return status;
  }
  if (view_attempts_ == 0) events_.Add("waiting", status.message());
  Backoff(status, false, &view_attempts_, &view_retry_at_);
  return Ok();
}

// --- waiting and telling

int64_t Engine::AttachAt() const {
  // Most attaches need no store. Those that do wait for their turn.
  return attach_waits_ ? std::max(attempt_at_, store_->endpoint()->next_try()) : attempt_at_;
}

// Between two PUTs: the next leader need not find out what became of one under way. A store that keeps one waiting does
// not hold it up for longer than kLongestYield.
bool Engine::YieldsNow() {
  if (!place_.yields || control_->handover.load() == handover_seen_) return false;
  const int64_t now = clock_.SteadyMicros();
  if (yield_by_ == 0) yield_by_ = now + kLongestYield;
  return (!log_in_flight_ && !snapshot_in_flight_) || now >= yield_by_;
}

bool Engine::Drained() const {
  if (fenced_ || (!error_.ok() && NeedsPerson(error_))) return true;  // more time would not help
  if (!attached_) return false;
  return control_->sync_done.load() >= stop_ticket_.load() && !log_in_flight_ && !snapshot_ &&
         (!builder_ || state_.snapshot_txid != 0) && !needs_resync_ && state_.snapshot_txid != 0;
}

void Engine::Sleep() {
  const uint32_t word = control_->wake_word.load(std::memory_order_seq_cst);
  const int64_t now = clock_.SteadyMicros();
  int64_t wait = options_.watch_interval;
  auto until = [&](int64_t moment) { wait = std::min(wait, std::max<int64_t>(moment - now, 0)); };
  const bool streaming = attached_ && !fenced_;
  const bool resting = attempt_at_ > now;  // after a local error
  const uint64_t backlog = streaming && !needs_resync_ ? source_->Backlog() : 0;
  const bool idle = backlog == 0 && queue_.empty() && !log_in_flight_;
  const int64_t open = store_->endpoint()->next_try();
  if (!attached_) until(AttachAt());
  if (Stopping()) until(stop_at_.load());
  until(events_.due());
  if (yield_by_ != 0) until(yield_by_);
  if (streaming) {
    if (!queue_.empty() && !log_in_flight_ && !state_.unread) until(std::max(retry_at_, open));
    if (SnapshotReady()) until(std::max(snapshot_retry_at_, open));
    if (state_.snapshot_txid != 0 && !looking_ && !Stopping()) until(std::max(look_at_, open));
    if (resting) {
      until(attempt_at_);
    } else if (comparison_ != nullptr) {
      // One that must wait for the store follows what is committed, so that it does not pile up.
      until(comparison_->CanOnlyFollow() && !(queue_.empty() && !log_in_flight_) ? now + kFollowInterval : now);
    } else if (queue_.empty() && !log_in_flight_ && (needs_resync_ || backlog != 0)) {
      until(needs_resync_ ? now : next_turn_);
    }
  }
  const bool view_rests = view_retry_at_ > now;
  if (streaming && view_rests) until(view_retry_at_);
  if (streaming && (builder_ || scan_) && !resting && !view_rests) return;
  if (wait <= 0 || (Stopping() && Drained())) return;
  // Idle: any commit wakes. Gathering: the timer or the PUT's end will, so commits need not, unless the WAL fills up.
  uint64_t wake_at = kWakeAtAnyCommit;
  const uint64_t committed = control_->committed.load(std::memory_order_seq_cst);
  if (!streaming || (needs_resync_ && comparison_ == nullptr) || resting) {
    wake_at = kWakeNever;
  } else if (!idle || needs_resync_) {
    wake_at = committed + kWakeFrames;
  }
  control_->wake_at.store(wake_at, std::memory_order_seq_cst);
  // The other half of Dekker (Database::Tap): what was committed or asked before wake_at was visible is looked for now.
  const bool commit = idle && streaming && !needs_resync_ && !resting &&
                      (control_->committed.load(std::memory_order_seq_cst) != committed || source_->Backlog() != 0);
  const bool asked =
      streaming && !resting && !needs_resync_ &&
      (((control_->sync_wanted.load() != captured_ticket_ || capture_due_) && queue_.empty() && !log_in_flight_) ||
       (!view_rests && ((control_->snapshot_wanted.load() != control_->snapshot_done.load() && !snapshot_) ||
                        SnapshotDue() || control_->mark_wanted.load() != control_->mark_done.load() || state_.unread)));
  if (!commit && !asked && !YieldsNow() && mailbox_->Empty()) FutexWait(&control_->wake_word, word, wait);
  control_->wake_at.store(kWakeNever, std::memory_order_seq_cst);
}

void Engine::SetError(const Status& status) {
  if (status.code() == Code::kInterrupted) return;  // it stops
  if (error_.code() == status.code() && error_.message() == status.message()) return;
  if (error_.ok()) control_->error_since.store(clock_.WallMicros());
  error_ = status;
  StoreText(&control_->last_error, status.message());
  events_.Error(status);
  if (place_.tell && NeedsPerson(status)) place_.tell(status.message());
  SetState();
  NotifyWaiters(control_);
}

void Engine::ClearError() {
  // An earlier leader's error counts as well.
  const bool inherited = std::exchange(inherited_error_, false);
  if (error_.ok() && control_->error_since.load() == 0) return;
  error_ = Ok();
  control_->error_since.store(0);
  events_.Recovered(inherited);
}

void Engine::SetState() {
  ReplicaState state = ReplicaState::kStreaming;
  if (fenced_) {
    state = ReplicaState::kFenced;
  } else if (!error_.ok() && NeedsPerson(error_)) {
    state = ReplicaState::kError;
  } else if (!attached_) {
    state = error_.ok() ? ReplicaState::kSnapshot : ReplicaState::kBehind;
  } else if (needs_resync_) {
    state = ReplicaState::kResync;
  } else if (!error_.ok()) {
    state = ReplicaState::kBehind;
  } else if (state_.snapshot_txid == 0) {
    state = ReplicaState::kSnapshot;
  }
  control_->state.store(static_cast<uint32_t>(state));
}

}  // namespace replica

#include "server/rpc/stats_watch.h"

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pyramidkv/v1/stats.pb.h"
#include "server/api/errors.h"
#include "server/api/times.h"
#include "server/rpc/refused_stream.h"
#include "server/rpc/stats_service.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr absl::Duration kDefaultInterval = absl::Seconds(1);
constexpr absl::Duration kMinInterval = absl::Milliseconds(50);
constexpr absl::Duration kMaxInterval = absl::Hours(1);
constexpr absl::Duration kRetryDelay = absl::Seconds(10);
// No tick comes sooner than this after the one before, so that the ticks of many watchers become one.
constexpr std::chrono::milliseconds kTickSpacing(20);

constexpr int32_t kNanosOfSecond = 1'000'000'000;

absl::StatusOr<absl::Duration> read_interval(const pb::WatchStatsRequest& request) {
  if (!request.has_interval()) return kDefaultInterval;
  const google::protobuf::Duration& wished = request.interval();
  const absl::Duration interval = to_absl(wished);
  if (wished.nanos() <= -kNanosOfSecond || wished.nanos() >= kNanosOfSecond || interval < kMinInterval ||
      interval > kMaxInterval) {
    return bad_input("interval", absl::StrCat("must be ", absl::FormatDuration(kMinInterval), " to ",
                                              absl::FormatDuration(kMaxInterval)));
  }
  return interval;
}

grpc::ByteBuffer state_message(ServerState& state, bool rows) {
  pb::WatchStatsResponse message;
  set_stats(state, rows, *message.mutable_stats());
  return serialize_message(message);
}

}  // namespace

// One stream. Its data is guarded by the watch's mutex; nothing of it may be touched after end() but by OnDone.
class StatsWatch::Watcher final : public Reactor {
 public:
  Watcher(StatsWatch& watch, grpc::CallbackServerContext& context, Clock::duration interval, bool rows)
      : interval_(interval), rows_(rows), watch_(watch), context_(context), due_(Clock::now() + interval) {}

  ~Watcher() override { watch_.remove(*this); }

  bool rows() const { return rows_; }
  Clock::time_point due() const { return due_; }
  bool can_write() const { return !writing_ && !finished_; }
  void write(const grpc::ByteBuffer& message) {
    buffer_ = message;
    watch_.replies_->begin(context_);
    writing_ = true;  // after what may find no memory
    StartWrite(&buffer_);
  }
  // Ticks that were missed are not made up for.
  void advance(Clock::time_point now) {
    due_ += interval_;
    if (due_ <= now) due_ = now + interval_;
  }
  void cancel_write() {
    if (writing_) context_.TryCancel();
  }
  // Whether it is the caller's to end(): without the lock, as what is sent then may have to wait for memory.
  bool claim_end() {
    if (!can_write()) return false;
    finished_ = true;
    return true;
  }
  void end(const absl::Status& status) { Finish(watch_.replies_->settle(status, context_)); }

  void OnWriteDone(bool ok) override {
    watch_.replies_->end(context_);
    bool broken = false;
    {
      const std::lock_guard lock(watch_.mutex_);
      writing_ = false;
      broken = !ok || cancelled_;
      if ((!broken && !watch_.closed_) || !claim_end()) return;
    }
    end(broken ? absl::CancelledError() : outcome_of(server_stopping));
  }
  void OnCancel() override {
    {
      const std::lock_guard lock(watch_.mutex_);
      cancelled_ = true;
      if (!claim_end()) return;
    }
    end(absl::CancelledError());
  }
  void OnDone() override {
    watch_.replies_->end(context_);
    delete this;
  }

 private:
  const Clock::duration interval_;
  const bool rows_;  // also the requests
  StatsWatch& watch_;
  grpc::CallbackServerContext& context_;
  Clock::time_point due_;
  grpc::ByteBuffer buffer_;  // of the write in flight
  bool writing_ = true;      // from the start: the first message is on its way
  bool cancelled_ = false;
  bool finished_ = false;  // or about to be
};

StatsWatch::StatsWatch(ServerState& state, std::shared_ptr<ReplyWatch> replies)
    : state_(state), replies_(std::move(replies)), thread_([this] { run(); }) {}

StatsWatch::~StatsWatch() {
  close();
  thread_.join();
}

StatsWatch::Reactor* StatsWatch::start(const grpc::ByteBuffer& request, grpc::CallbackServerContext& context) {
  pb::WatchStatsRequest message;
  if (const absl::Status status = parse_message(request, message); !status.ok()) return refuse_stream(status, context);
  const absl::StatusOr<absl::Duration> interval = read_interval(message);
  if (!interval.ok()) return refuse_stream(interval.status(), context);
  auto watcher =
      std::make_unique<Watcher>(*this, context, absl::ToChronoNanoseconds(*interval), message.include_requests());
  if (const absl::Status status = add(*watcher); !status.ok()) return refuse_stream(status, context);
  const grpc::ByteBuffer first = state_message(state_, message.include_requests());
  const std::lock_guard lock(mutex_);
  watcher->write(first);
  return watcher.release();
}

void StatsWatch::close() {
  std::unique_lock lock(mutex_);
  if (closed_) return;
  closed_ = true;
  changed_.notify_one();
  for (Watcher* watcher : watchers_) watcher->cancel_write();
  while (true) {
    const auto idle = std::ranges::find_if(watchers_, &Watcher::claim_end);
    if (idle == watchers_.end()) return;
    Watcher& watcher = **idle;
    lock.unlock();
    watcher.end(outcome_of(server_stopping));
    lock.lock();
  }
}

absl::Status StatsWatch::add(Watcher& watcher) {
  const std::lock_guard lock(mutex_);
  if (closed_) return server_stopping();
  const size_t most = state_.limits()->max_watchers;
  if (watchers_.size() >= most) {
    return make_error(
        {.reason = kTooManyWatchers,
         .description = absl::StrCat("there are ", most, " watchers already (server.max_watchers); GetStats answers"),
         .metadata = {{"max", absl::StrCat(most)}},
         .retry_delay = kRetryDelay});
  }
  watchers_.push_back(&watcher);
  changed_.notify_one();
  return absl::OkStatus();
}

void StatsWatch::remove(Watcher& watcher) {
  const std::lock_guard lock(mutex_);
  std::erase(watchers_, &watcher);
}

void StatsWatch::run() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    const std::optional<Clock::time_point> next = next_tick();
    if (!next) {
      changed_.wait(lock);
    } else if (const auto left = *next - Clock::now(); left > Clock::duration::zero()) {
      changed_.wait_for(lock, left);
    } else {
      try {
        tick(lock);
      } catch (const std::bad_alloc&) {  // the next time
        if (!lock.owns_lock()) lock.lock();
      }
    }
  }
}

std::optional<StatsWatch::Clock::time_point> StatsWatch::next_tick() const {
  if (watchers_.empty()) return std::nullopt;
  const auto first = std::min_element(watchers_.begin(), watchers_.end(),
                                      [](const Watcher* a, const Watcher* b) { return a->due() < b->due(); });
  return std::max((*first)->due(), last_tick_ + kTickSpacing);
}

// The messages are made without the lock: calls come and go meanwhile.
void StatsWatch::tick(std::unique_lock<std::mutex>& lock) {
  const Clock::time_point now = Clock::now();
  last_tick_ = now;
  std::array<bool, 2> wanted = {};  // without rows, with
  for (const Watcher* watcher : watchers_) {
    if (watcher->due() <= now && watcher->can_write()) wanted[watcher->rows()] = true;
  }
  lock.unlock();
  std::array<grpc::ByteBuffer, 2> messages;
  for (const bool rows : {false, true}) {
    if (wanted[rows]) messages[rows] = state_message(state_, rows);
  }
  lock.lock();
  for (Watcher* watcher : watchers_) {
    if (watcher->due() > now) continue;
    if (wanted[watcher->rows()] && watcher->can_write()) watcher->write(messages[watcher->rows()]);
    watcher->advance(now);
  }
}

}  // namespace pkv

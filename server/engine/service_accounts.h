// What each owner of jobs has had of the engine, in multiply-adds: so that the one who had least goes first. Only what
// owners with jobs have had beyond each other counts: whoever comes new or back begins level with the one of them who
// had least, and keeps what it had beyond that. Owned by the engine thread.
//
// Source: the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), here in
// work instead of tokens, and with what was promised apart from what was done.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace pkv {

class ServiceAccounts {
 public:
  struct Account {
    int64_t had = 0;       // done for it
    int64_t promised = 0;  // of its admitted jobs, not done yet
    int32_t jobs = 0;

    int64_t with_promises() const { return had + promised; }
  };

  // One more, or one less, job of the owner. The account stays where it is while it has jobs.
  Account& join(const std::string& owner);
  void leave(const std::string& owner);

  size_t size() const { return accounts_.size(); }  // those remembered

 private:
  void rebase();

  std::map<std::string, Account> accounts_;
};

}  // namespace pkv

#include "server/engine/service_accounts.h"

#include <algorithm>
#include <limits>

namespace pkv {

// Before the newcomer counts: it begins at 0, which is then the least that others have had.
ServiceAccounts::Account& ServiceAccounts::join(const std::string& owner) {
  rebase();
  Account& account = accounts_[owner];
  ++account.jobs;
  return account;
}

void ServiceAccounts::leave(const std::string& owner) {
  --accounts_.at(owner).jobs;
  rebase();
}

// The least that an owner with jobs has had becomes 0; who has no jobs and had no more is forgotten.
void ServiceAccounts::rebase() {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const auto& [owner, account] : accounts_) {
    if (account.jobs > 0) least = std::min(least, account.had);
  }
  for (auto& [owner, account] : accounts_) account.had = std::max<int64_t>(0, account.had - least);
  std::erase_if(accounts_, [](const auto& entry) { return entry.second.jobs == 0 && entry.second.had == 0; });
}

}  // namespace pkv

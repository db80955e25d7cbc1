// What a chat remembers, and its commands.
#include "client/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(Conversation, AFailedQuestionIsKeptAndLeavesNoTrace) {
  Conversation chat("be brief");
  EXPECT_THAT(chat.asked("one?"), ElementsAre(Pair("system", "be brief"), Pair("user", "one?")));
  chat.answered("1");
  (void)chat.asked("two?");
  EXPECT_EQ(chat.unanswered(), "two?");
  EXPECT_EQ(chat.exchanges(), 1u);
  EXPECT_THAT(chat.asked("three?"), ElementsAre(Pair("system", "be brief"), Pair("user", "one?"),
                                                Pair("assistant", "1"), Pair("user", "three?")));
  chat.answered("3");
  EXPECT_FALSE(chat.unanswered());
}

TEST(Conversation, ForgetsTheOldest) {
  Conversation chat("");
  for (const char* text : {"a", "b", "c"}) {
    (void)chat.asked(text);
    chat.answered("ok");
  }
  EXPECT_EQ(chat.forget(1), 1u);
  EXPECT_THAT(chat.asked("d"), ElementsAre(Pair("user", "b"), Pair("assistant", "ok"), Pair("user", "c"),
                                           Pair("assistant", "ok"), Pair("user", "d")));
  EXPECT_EQ(chat.forget(9), 2u);
  chat.reset();
  EXPECT_FALSE(chat.unanswered());
}

TEST(Conversation, SavedAndLoaded) {
  Conversation chat("be \"brief\"");
  (void)chat.asked("one?\n");
  chat.answered("1");
  Conversation other("something else");
  ASSERT_EQ(other.read_json(chat.to_json()), "");
  EXPECT_EQ(other.to_json(), chat.to_json());
  EXPECT_EQ(other.asked("x").size(), 4u);
  for (const char* bad : {"", "{}", "[]", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
                          "{\"messages\":[{\"role\":\"assistant\"},{\"role\":\"user\"}]}"}) {
    EXPECT_THAT(other.read_json(bad), HasSubstr("is no conversation")) << bad;
    EXPECT_EQ(other.exchanges(), 1u);
  }
}

TEST(ReadChatLine, MessagesAndCommands) {
  EXPECT_EQ(read_chat_line("hello /there").text, "hello /there");
  EXPECT_EQ(read_chat_line("//etc/hosts").text, "/etc/hosts");
  const ChatLine policy = read_chat_line("/policy snapkv 128 ");
  EXPECT_EQ(policy.command, "policy");
  EXPECT_THAT(policy.arguments, ElementsAre("snapkv", "128"));
  EXPECT_EQ(read_chat_line("/polcy snapkv").problem,
            "there is no command /polcy; did you mean '/policy'?; /help lists them");
  EXPECT_THAT(read_chat_line("/save").problem, HasSubstr("needs a word more"));
  EXPECT_THAT(read_chat_line("/reset now").problem, HasSubstr("fewer words"));
  EXPECT_THAT(read_chat_line("/").problem, HasSubstr("/help"));
}

}  // namespace
}  // namespace pkv::client

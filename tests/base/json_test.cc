#include "base/json.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace replica {
namespace {

TEST(JsonValue, IsWrittenInOrderOnOneLine) {
  Json json = Json::Of("b", 1, "a", -2, "big", UINT64_MAX, "none", Json(), "yes", true, "half", 0.5, "zero", 0.0);
  json["list"].push_back("a \"quoted\" one\n");
  json["list"].push_back(Json::Of("in", std::vector<std::string>{"x", "y"}));
  json["empty"] = Json::Array();
  json["object"] = Json::Object();
  json["b"] = "again";
  EXPECT_EQ(json.Dump(),
            "{\"b\":\"again\",\"a\":-2,\"big\":18446744073709551615,\"none\":null,\"yes\":true,\"half\":0.5,"
            "\"zero\":0.0,\"list\":[\"a \\\"quoted\\\" one\\n\",{\"in\":[\"x\",\"y\"]}],\"empty\":[],\"object\":{}}");
  EXPECT_EQ(Json(std::numeric_limits<double>::infinity()).Dump(), "null");
  EXPECT_EQ(Json("\xff").Dump(), "\"\xef\xbf\xbd\"");
}

TEST(JsonValue, WhatWasWrittenIsRead) {
  const std::string text = "{\"a\":[1,-1,1.5,\"x\",null,[{}],{\"b\":[]}],\"c\":{\"d\":true}}";
  EXPECT_EQ(Json::Parse(text)->Dump(), text);
}

TEST(JsonValue, TypesAreAskedFor) {
  const auto json = Json::Parse(R"({"t": "x", "n": 5, "m": -5, "big": 18446744073709551615, "d": 1.5, "t": "last"})");
  EXPECT_EQ(json->TextOf("t"), "last");
  EXPECT_EQ(json->TextOf("n"), "");
  EXPECT_EQ(json->TextOf("missing"), "");
  EXPECT_EQ(json->Find("n")->natural(), 5U);
  EXPECT_EQ(json->Find("m")->integer(), -5);
  EXPECT_EQ(json->Find("m")->natural(), std::nullopt);
  EXPECT_EQ(json->Find("big")->integer(), std::nullopt);
  EXPECT_EQ(*json->Find("d")->real(), 1.5);
  EXPECT_EQ(json->Find("d")->integer(), std::nullopt);
  EXPECT_EQ(json->Find("t")->flag(), nullptr);
}

// What followed a NUL was ignored: the document counted as valid.
TEST(JsonValue, RegressionANulIsNoEnd) {
  using std::string_literals::operator""s;
  for (const std::string& bad : {"{}\0x"s, "1\0"s, "[1]\0{}"s, "\"a\0b\""s, "\0"s})
    EXPECT_FALSE(Json::Parse(bad).has_value()) << bad;
  EXPECT_EQ(*Json::Parse("\"\\u0000\"")->text(), "\0"s);
}

TEST(JsonValue, ForeignTextIsCheckedAndBounded) {
  for (const char* bad : {"", "{", "{\"a\":1}x", "\xff", "\"\xff\"", "nul", "{\"a\" 1}", "[1,]"})
    EXPECT_FALSE(Json::Parse(bad).has_value()) << bad;
  EXPECT_FALSE(Json::Parse(std::string(100000, '[')).has_value());
  EXPECT_FALSE(Json::Parse(std::string(17, '[') + std::string(17, ']')).has_value());
  EXPECT_TRUE(Json::Parse(std::string(16, '[') + std::string(16, ']')).has_value());
}

}  // namespace
}  // namespace replica

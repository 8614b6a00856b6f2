# Loads libreplica, once, before the app opens a database: from then on every connection of this process is seen, and
# of each worker that is forked from it. In production a missing setting stops the boot here, with its name.
# Elsewhere nothing happens unless REPLICA_CONFIG names a file.
if Rails.env.production? || ENV["REPLICA_CONFIG"]
  ENV["REPLICA_CONFIG"] ||= Rails.root.join("config/replica.yml").to_s

  require "sqlite3"
  SQLite3::Database.new(":memory:") do |db|
    db.enable_load_extension(true)
    db.load_extension(ENV.fetch("LIBREPLICA", "libreplica"))
  end
end

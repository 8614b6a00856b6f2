environment ENV.fetch("RAILS_ENV", "development")
bind ENV.fetch("BIND", "tcp://127.0.0.1:3000")
threads 1, ENV.fetch("RAILS_MAX_THREADS", 5).to_i
workers ENV.fetch("WEB_CONCURRENCY", 2).to_i
preload_app!

# Longer than replica.yml's shutdown-timeout: the last worker that goes stores what is not stored yet.
worker_shutdown_timeout 30

# A SQLite connection must not be carried through fork().
before_fork { ActiveRecord::Base.clear_all_connections! }

# With a Gemfile this is where Bundler is set up; the example uses Debian's packages, which need none.
ENV["DATA_DIR"] ||= "/data" # where the databases lie: read by database.yml and by replica.yml

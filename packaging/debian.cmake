# Debian packages: scripts/package.sh makes libreplica (extension, command, unit) and libreplica-dev (static library,
# header). The extension lies in a private folder, as policy wants of a library that is loaded and not linked, with a link
# where `.load libreplica` finds it.
set(CPACK_PACKAGE_NAME libreplica)
set(CPACK_PACKAGE_VENDOR "libreplica")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "live, verifiable copies of SQLite databases in object storage")
set(CPACK_PACKAGE_CONTACT "libreplica maintainers <maintainers@libreplica.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL libreplica libreplica-dev)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 0vendor1)  # before whatever Debian itself may have
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_LIBREPLICA_PACKAGE_NAME libreplica)
set(CPACK_DEBIAN_LIBREPLICA_PACKAGE_SUGGESTS sqlite3)
set(CPACK_COMPONENT_LIBREPLICA_DESCRIPTION "A loadable extension for SQLite that uploads every commit of a database in WAL
mode to S3 or a folder, from inside the application, and the replica command,
which shows, proves and restores what is there.")
set(CPACK_DEBIAN_LIBREPLICA-DEV_PACKAGE_NAME libreplica-dev)
set(CPACK_DEBIAN_LIBREPLICA-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBREPLICA-DEV_PACKAGE_DEPENDS
    "libsqlite3-dev, libcurl4-openssl-dev, libssl-dev, libzstd-dev, libxxhash-dev, libpugixml-dev, libyaml-cpp-dev, zlib1g-dev")
set(CPACK_COMPONENT_LIBREPLICA-DEV_DESCRIPTION "Static library and header, for programs that link the SQLite extension
libreplica in place of loading it, and call sqlite3_auto_extension with its
entry point.")

# Policy: a copyright file, and a compressed changelog, in each package's folder; the manual compressed.
string(TIMESTAMP REPLICA_RELEASED "%a, %d %b %Y %H:%M:%S +0000" UTC)
configure_file(packaging/changelog.in ${CMAKE_BINARY_DIR}/debian/changelog @ONLY)
find_program(GZIP gzip REQUIRED)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/debian/changelog.Debian.gz
  COMMAND ${GZIP} -9nc ${CMAKE_BINARY_DIR}/debian/changelog > ${CMAKE_BINARY_DIR}/debian/changelog.Debian.gz
  DEPENDS ${CMAKE_BINARY_DIR}/debian/changelog VERBATIM)
add_custom_target(replica_debian ALL DEPENDS ${CMAKE_BINARY_DIR}/debian/changelog.Debian.gz)
foreach(package libreplica libreplica-dev)
  install(FILES packaging/copyright ${CMAKE_BINARY_DIR}/debian/changelog.Debian.gz
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} COMPONENT ${package})
endforeach()
install(FILES README.md docs/alerts.yml docs/architecture.md docs/cli.md docs/configuration.md docs/dashboard.md docs/format.md
              docs/from-litestream.md docs/grafana.json docs/metrics.md docs/sql.md
        DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libreplica COMPONENT libreplica)
include(CPack)

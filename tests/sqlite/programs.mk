# SQLite's test programs as objects, linked twice: as they are (bin/baseline) and with libreplica (bin/replica).
# Run by build.sh in the folder where SQLite was configured:
#
#   make -f programs.mk SUITE=<this folder> REPLICA=<libreplica.a> REPLICA_LIBS=<what it needs> programs
#
# replica.linked names the libreplica.a that bin/replica is made of, with its time; build.sh writes it. So a new one
# costs four links and no compilation.
.DEFAULT_GOAL = programs

include Makefile

# -w: SQLite's test tools warn. SNAPSHOT: snapshot*.test would be skipped without.
SUITE_FLAGS = -w -include $(SUITE)/init.h -DSQLITE_ENABLE_SNAPSHOT -DSQLITE_EXTRA_INIT=suite_init
PROGRAMS = testfixture mptester threadtest3 speedtest1
SUITE_LIBS = $(TLIBS) -lpthread -ldl

tf = $(patsubst %.c,tf/%.o,$(notdir $(TESTFIXTURE_SRC)))
testfixture_objects = $(tf)
testfixture_libs = $(LIBTCL)
mptester_objects = plain/mptest.o plain/sqlite3.o
threadtest3_objects = plain/threadtest3.o plain/test_multiplex.o plain/sqlite3.o
speedtest1_objects = plain/speedtest1.o plain/sqlite3.o

vpath %.c $(sort $(dir $(TESTFIXTURE_SRC))) $(TOP)/mptest $(TOP)/test $(SUITE)

programs: $(PROGRAMS:%=bin/baseline/%) $(PROGRAMS:%=bin/replica/%)
objects: $(tf) $(mptester_objects) $(threadtest3_objects) $(speedtest1_objects)

tf plain bin/baseline bin/replica:
	mkdir -p $@

tf/%.o: %.c $(SUITE)/init.h | tf sqlite3.c
	$(TCC) -DSQLITE_NO_SYNC=1 $(TEMP_STORE) $(TESTFIXTURE_FLAGS) $(SUITE_FLAGS) -c $< -o $@
plain/%.o: %.c $(SUITE)/init.h | plain sqlite3.c
	$(TCC) $(TEMP_STORE) $(SUITE_FLAGS) -c $< -o $@
plain/init_replica.o: $(SUITE)/init.c $(SUITE)/init.h | plain sqlite3.c
	$(TCC) -DWITH_REPLICA -I$(SUITE) -c $< -o $@
plain/init.o: $(SUITE)/init.c $(SUITE)/init.h | plain sqlite3.c
	$(TCC) -I$(SUITE) -c $< -o $@

define link
bin/baseline/$(1): $$($(1)_objects) plain/init.o | bin/baseline
	$$(CC) -o $$@ $$^ $$($(1)_libs) $$(SUITE_LIBS)
bin/replica/$(1): $$($(1)_objects) plain/init_replica.o replica.linked | bin/replica
	$$(CXX) -o $$@ $$(filter %.o,$$^) $$(REPLICA) $$(REPLICA_LIBS) $$($(1)_libs) $$(SUITE_LIBS)
endef
$(foreach program,$(PROGRAMS),$(eval $(call link,$(program))))
